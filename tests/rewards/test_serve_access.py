"""Who reaches a server of rewards, and who does not: token, host, slow clients, and what one client may hold."""

import asyncio
import http.client
import json
import pickle
import socket
import threading

import pytest
import torch

from rlr.rewards import Brightness, Remote
from rlr.rewards.remote import server as serve
from rlr.rewards.remote.guard import Guard
from rlr.rewards.remote.protocol import Limits, Refused, pack, unpack
from rlr.rewards.remote.server import check_reach, main
from rlr.rewards.remote.token import VARIABLE, Token
from tests.rewards.server import Scripted, running, serving

TOKEN = "a-token-of-twenty-four-c"
PIXELS = torch.full((1, 3, 2, 2), 0.5)
BODY = json.dumps(pack(PIXELS, ["a"]))


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def ask(url: str, path: str = "/health", body: str | None = None, **headers: str) -> tuple[int, dict]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    given = {"Content-Type": "application/json", **headers}
    connection.request("GET" if body is None else "POST", path, body, given)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


# ---------------------------------------------------------------- token


@pytest.fixture(scope="module")
def locked():
    with serving(Brightness(), TOKEN, None) as url:
        yield url


@pytest.mark.parametrize("path", ["/health", "/openapi.json", "/score", "/nothing"])
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", TOKEN, f"Basic {TOKEN}", "Bearer ü"]
)
def test_nothing_is_answered_without_the_token(locked, path, header):
    given = {} if header is None else {"Authorization": header}
    status, answer = ask(locked, path, BODY if path == "/score" else None, **given)
    assert (status, answer["error"].startswith("the token is missing or wrong")) == (401, True)
    assert TOKEN not in json.dumps(answer)


def test_everything_is_answered_with_it(locked):
    given = {"Authorization": f"Bearer {TOKEN}"}
    assert ask(locked, **given)[1]["label"] == "Brightness"
    assert ask(locked, "/score", BODY, **given) == (200, {"scores": [pytest.approx(0.5, abs=0.01)]})


def test_tokens_are_compared_in_constant_time(monkeypatch):
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return False

    monkeypatch.setattr("rlr.rewards.remote.guard.hmac.compare_digest", compare)
    assert not Guard(None, TOKEN)._is_token(b"Bearer x")
    assert compared == [(b"Bearer x", f"Bearer {TOKEN}".encode())]


@pytest.mark.parametrize("place", ["variable", "file"])
def test_the_client_shows_it_and_keeps_it_nowhere(locked, place, monkeypatch, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    settings = {"token_variable": "MINE"} if place == "variable" else {"token_file": str(tmp_path / "token")}
    if place == "variable":
        monkeypatch.setenv("MINE", TOKEN)
    reward = Remote(locked, **settings)
    assert reward(PIXELS, ["a"]).item() == pytest.approx(0.5, abs=0.01)
    assert TOKEN.encode() not in pickle.dumps(reward)
    (connection,) = reward.servers.servers.values()
    assert TOKEN not in str(vars(reward)) + str(vars(connection)) + str(reward.state_dict())


def test_the_client_says_where_it_looked_for_the_token(locked, monkeypatch):
    with pytest.raises(
        ValueError, match=rf"status 401: the token is missing .* in the environment variable {VARIABLE}\)$"
    ):
        Remote(locked)
    monkeypatch.setenv(VARIABLE, "another-token-altogether")
    with pytest.raises(ValueError, match="status 401") as error:
        Remote(locked)
    assert "another-token" not in str(error.value)


@pytest.mark.parametrize("status", [400, 503])
def test_a_token_that_a_server_repeats_is_hidden(status, monkeypatch):
    monkeypatch.setenv(VARIABLE, TOKEN)
    monkeypatch.setattr("rlr.io.http.sleep", lambda seconds: None)
    app = Scripted((status, {"error": f"who is Bearer {TOKEN}?"}))
    with running(app) as url:
        reward = Remote(url, retries=1)
        with pytest.raises((ValueError, ConnectionError), match=r"who is Bearer \[the token\]\?") as error:
            reward(PIXELS, ["a"])
    assert error.value.__cause__ is None


@pytest.mark.parametrize(
    "text", ["short", "with a blank in the middle", "with-an-ümlaut-in-it", "x" * 8 + "\n" + "y" * 8]
)
def test_what_is_no_token_is_refused_without_repeating_it(text, monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, text)
    (tmp_path / "token").write_text(text)
    for token in (Token(), Token(file=str(tmp_path / "token"))):
        with pytest.raises(ValueError, match="expected a token of at least 16 visible ASCII characters") as error:
            token.read()
        assert text not in str(error.value)


def test_a_file_that_is_named_must_hold_a_token(tmp_path):
    (tmp_path / "token").write_text("")
    with pytest.raises(ValueError, match="found 0 characters"):
        Token(file=str(tmp_path / "token")).read()
    with pytest.raises(ValueError, match=r"none with the token .* cannot be read \(No such file or directory\)"):
        Token(file=str(tmp_path / "none")).read()
    assert Token().read() is None


# ---------------------------------------------------------------- address


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1"])
def test_loopback_needs_no_token(host, monkeypatch):
    assert check_reach(host, 8000, Token()) is None
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert check_reach(host, 8000, Token()) == TOKEN


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "0", "192.168.1.2", "8.8.8.8"])
def test_any_other_address_does(host, monkeypatch):
    with pytest.raises(ValueError, match="expected a token for an address that other machines reach"):
        check_reach(host, 8000, Token())
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert check_reach(host, 8000, Token()) == TOKEN


def test_the_server_does_not_start_without_it(monkeypatch, capsys):
    started = []
    monkeypatch.setattr(serve.uvicorn, "run", lambda app, **where: started.append(where))
    monkeypatch.setattr(serve, "import_names", lambda package: None)
    assert main(["--reward=rlr.rewards.Brightness", "--host=0.0.0.0"]) == 2
    stated = capsys.readouterr().err
    assert (stated.count("\n"), stated.startswith("error: host 0.0.0.0: expected a token")) == (1, True)
    assert started == []
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert main(["--reward=rlr.rewards.Brightness", "--host=0.0.0.0", "--patience=3"]) == 0
    assert (started[0]["host"], started[0]["http"].patience, started[0]["ws"]) == ("0.0.0.0", 3, "none")


# ---------------------------------------------------------------- host


def test_a_foreign_host_is_refused():
    with serving(Brightness(), hosts=["gpu-7.lab"]) as url:
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "[::2]:8000", "::2", "x"):
            status, answer = ask(url, Host=host)
            assert (status, answer["error"].startswith("this server is not asked under that host")) == (421, True), host
        for host in ("127.0.0.1", "127.0.0.1:8000", "localhost:8000", "[::1]:8000", "GPU-7.lab:8000"):
            assert ask(url, Host=host)[0] == 200, host


def test_a_server_with_a_token_may_have_any_name(locked):
    assert ask(locked, Host="gpu-7.lab", Authorization=f"Bearer {TOKEN}")[0] == 200


# ---------------------------------------------------------------- slow clients


def connected(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


HEAD = b"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
SLOW = {
    "silence": b"",
    "half a head": b"POST /score HTTP/1.1\r\nHost: 127",
    "half a head after an answer": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /hea",
    "half a body": HEAD + b"Content-Length: 500\r\n\r\n{",
    "half a body in chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    "the rest of a refused body": HEAD.replace(b"application/json", b"text/plain") + b"Content-Length: 500\r\n\r\n{",
    "an upgrade": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nx",
}


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_client_is_cut_off(name):
    """Without the limit, reading from the connection would time out instead of ending."""
    with serving(Brightness(), patience=0.3) as url, connected(url) as client:
        client.sendall(SLOW[name])
        received = b""
        try:
            while part := client.recv(4096):
                received += part
        except ConnectionResetError:
            pass
    if "half a body" in name:
        assert received.startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive within 0.3 seconds" in received


def test_slow_clients_give_way_to_others():
    app = serve.application(serve.Service(Brightness(), torch.device("cpu"), Limits(patience=0.3)))
    with running(app, max_waiting=4, patience=0.3) as url:
        silent = [connected(url) for _ in range(8)]
        for client in silent:
            while client.recv(4096):
                pass
        assert Remote(url)(PIXELS, ["a"]).isfinite().all()
        for client in silent:
            client.close()


def status_of(connection: http.client.HTTPConnection) -> int:
    """The status of the answer to one more request of a connection, which stays open unless the server closes it."""
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_one_connection_more_than_the_limit_is_refused_until_another_ends():
    """Silent ones count; those that are open are answered, and a place that becomes free is given away."""
    app = serve.application(serve.Service(Brightness(), torch.device("cpu"), Limits()))
    with running(app, max_waiting=3) as url, connected(url) as silent:
        first, second, late = (http.client.HTTPConnection(url.removeprefix("http://"), timeout=60) for _ in range(3))
        assert [status_of(first), status_of(second), status_of(late)] == [200, 200, 503]
        late.close()
        silent.close()
        # the server notes the end of a connection after its client
        while status_of(late) == 503:
            late.close()
        # the place is taken again
        with connected(url) as another:
            another.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert another.recv(4096).startswith(b"HTTP/1.1 503 ")
        for connection in (first, second, late):
            connection.close()


def test_a_client_in_time_is_not_cut_off():
    with serving(Brightness()) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        for _ in range(3):
            connection.request("POST", "/score", BODY, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, answer.will_close) == (200, False)
            answer.read()
        connection.close()


# ---------------------------------------------------------------- what requests may hold


def test_a_reward_that_takes_too_long_is_stated_and_the_server_lives_on():
    go = threading.Event()

    class Stuck(Brightness):
        def forward(self, samples, prompts):
            if prompts == ["wait"]:
                go.wait(60)
            return super().forward(samples, prompts)

    with serving(Stuck(), seconds=0.3) as url:
        waiting = json.dumps(pack(PIXELS, ["wait"]))
        # the second one waits for the thread that the first one holds
        for body in (waiting, BODY):
            status, answer = ask(url, "/score", body)
            assert (status, "for more than 0.3 seconds" in answer["error"]) == (503, True)
        assert ask(url)[0] == 200
        go.set()
        while ask(url, "/score", BODY)[0] == 503:
            pass


def test_bytes_of_requests_that_wait_are_bounded_and_given_back():
    async def run() -> list[int]:
        service = serve.Service(Brightness(), torch.device("cpu"), Limits(held=2 * len(BODY)))
        app = serve.application(service)
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/score",
            "query_string": b"",
            "root_path": "",
            "headers": headers,
        }

        async def one() -> int:
            answers = []
            parts = [{"type": "http.request", "body": BODY.encode(), "more_body": False}]

            async def receive():
                return parts.pop() if parts else await asyncio.Future()

            async def send(message):
                answers.append(message)

            await app({**scope, "http_version": "1.1", "scheme": "http"}, receive, send)
            return answers[0]["status"]

        await service._turn.acquire()
        waiting = [asyncio.create_task(one()) for _ in range(2)]
        while service._held < 2 * len(BODY):
            await asyncio.sleep(0)
        refused = await one()
        service._turn.release()
        served = [await task for task in waiting]
        return [refused, *served, service._held]

    assert asyncio.run(run()) == [503, 200, 200, 0]


def test_a_body_of_brackets_is_refused_before_it_is_read():
    body = b'{"prompts": ["a"], "samples": [' + b",".join([b"[]"] * 700_000) + b"]}"
    with pytest.raises(Refused, match="more than 4096 images") as error:
        unpack(body, Limits())
    assert error.value.status == 413
