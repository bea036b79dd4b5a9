"""The HTTP client retries failures that may pass, reads no more than it should, and spares loopback the proxy."""

import json
import re
import socket
from threading import Thread

import pytest

from rlr.io import http
from rlr.io.http import Client, StatusError, TransientError, is_loopback


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The delays that would have been waited for."""
    seconds: list[float] = []
    monkeypatch.setattr(http, "sleep", seconds.append)
    return seconds


class Raw:
    """A server that sends given bytes to each connection in turn, the last ones again and again, and hangs up."""

    def __init__(self, *answers: bytes, endless: bytes = b"") -> None:
        self.answers, self.endless = list(answers), endless
        self.requests: list[bytes] = []
        self.sent = 0

    def __enter__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.socket.close()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection):
        try:
            self.requests.append(received(connection))
            connection.sendall(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
            while self.endless:
                self.sent += connection.send(self.endless)
        except OSError:
            pass


def received(connection: socket.socket) -> bytes:
    """A whole request."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head = data.partition(b"\r\n\r\n")[0]
    length = re.search(rb"content-length: (\d+)", head.lower())
    while len(data) < len(head) + 4 + (int(length[1]) if length else 0):
        data += connection.recv(65536)
    return data


def response(body: object, status: str = "200 OK", *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", "Connection: close", *headers])
    return f"{head}\r\n\r\n".encode() + data


def test_a_message_is_posted_as_json_and_without_one_it_is_a_get():
    with Raw(response({"a": [1]})) as server:
        client = Client(server.url + "/v1/")
        assert client.ask("/x") == {"a": [1]}
        assert client.ask("/y", {"ü": 1}, headers={"Authorization": "Bearer k"}) == {"a": [1]}
    get, post = server.requests
    assert get.startswith(b"GET /v1/x HTTP/1.1\r\n")
    assert post.startswith(b"POST /v1/y HTTP/1.1\r\n")
    assert b"\r\nauthorization: bearer k\r\n" in post.lower()
    assert post.endswith(json.dumps({"ü": 1}).encode())


@pytest.mark.parametrize(
    "failure",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        response({}, "429 Slow"),
        response({}, "500 Lost"),
        response({}, "503 Later"),
    ],
)
def test_a_failure_that_may_pass_is_asked_again(failure, waits):
    with Raw(failure, failure, response("good")) as server:
        assert Client(server.url, delay=0.5).ask("/", {}) == "good"
    assert waits == [0.5, 1.0]
    assert len(server.requests) == 3


def test_so_is_an_answer_that_its_reader_says_may_pass(waits):
    def read(body: bytes) -> str:
        if body == b"no":
            raise TransientError("the answer is no")
        return body.decode()

    with Raw(response(b"no"), response(b"yes")) as server:
        assert Client(server.url).ask("/", {}, read) == "yes"
    with Raw(response(b"no")) as server, pytest.raises(ConnectionError, match=r"^the answer is no$"):
        Client(server.url, retries=2).ask("/", {}, read)
    assert len(server.requests) == 3
    assert waits == [1, 1, 2]


def test_silence_is_a_timeout(waits):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConnectionError, match="timed out"):
            Client(url, timeout=0.05, retries=1).ask("/")
    with pytest.raises(ConnectionError, match="refused"):
        Client(url, retries=0).ask("/")
    assert waits == [1]


@pytest.mark.parametrize("status", ["301 Moved", "307 Elsewhere", "401 Who", "404 Nothing"])
def test_a_refusal_is_final_and_a_redirection_is_not_followed(status, waits):
    with (
        Raw(response({"error": "no\nway"}, status, "Location: http://127.0.0.1:9/")) as server,
        pytest.raises(StatusError, match=rf"status {status[:3]}, no way") as error,
    ):
        Client(server.url).ask("/", {})
    assert (error.value.status, error.value.text) == (int(status[:3]), "no way")
    assert (len(server.requests), waits) == (1, [])


@pytest.mark.parametrize("status", ["200 OK", "404 Nothing"])
def test_an_endless_answer_is_not_read_to_its_end(status):
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode()
    with Raw(head, endless=b"x" * 65536) as server:
        with pytest.raises(ValueError, match="expected an answer of at most 1000000 bytes, got a larger one"):
            Client(server.url, max_bytes=10**6).ask("/")
        assert server.sent < 2**25


def test_a_slow_endless_answer_ends_too(monkeypatch):
    now = iter(range(0, 10**6, 4))
    monkeypatch.setattr(http, "monotonic", lambda: next(now))
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    with Raw(head, endless=b"x") as server, pytest.raises(ConnectionError, match="took more than 10 seconds"):
        Client(server.url, timeout=10, retries=0).ask("/")


def test_an_answer_is_not_unpacked():
    with Raw(response(b"\x1f\x8b" + 100 * b"x", "200 OK", "Content-Encoding: gzip")) as server:
        assert Client(server.url).ask("/", read=len) == 102
    assert b"accept-encoding: identity" in server.requests[0].lower()


@pytest.mark.parametrize("body", [b"[" * 100_000, b"<html>", b"\xff", b"1" * 5000])
def test_what_is_no_json_is_a_value_error(body):
    with Raw(response(body)) as server, pytest.raises(ValueError):  # noqa: PT011 - of several texts, json's own
        Client(server.url).ask("/")


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_not_asked_through_a_proxy_and_other_hosts_are(monkeypatch, variable, host):
    with Raw(response("server")) as server, Raw(response("proxy")) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        port = server.url.rpartition(":")[2]
        assert Client(f"http://{host}:{port}").ask("/") == "server"
        assert proxy.requests == []
        assert Client("http://reward.invalid").ask("/") == "proxy"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("127.1", True),
        ("2130706433", True),
        ("0x7f000001", True),
        ("localhost.", True),
        ("LOCALHOST", True),
        ("10.1", False),
        ("1.2.3.4.5", False),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("example.com", False),
    ],
)
def test_what_is_this_machine(host, local):
    assert is_loopback(host) == local


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "file:///etc/passwd"},
        {"url": "127.0.0.1:8000"},
        {"url": "http://"},
        {"url": "http://127.0.0.1:99999"},
        {"url": "http://a\x00b"},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"retries": -1},
        {"delay": -1},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        Client(**{"url": "http://127.0.0.1:1", **settings})
