"""An endpoint is asked once a prompt, outlives a fault that passes, loses no answer, and its key stays secret."""

import json
import pickle
import socket

import pytest

from rlr.data import DCoT, Endpoint, Prompts, StageFile
from rlr.io import http
from tests.data.completions import Completions, completion, running, stated


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The delays that would have been waited for."""
    seconds: list[float] = []
    monkeypatch.setattr(http, "sleep", seconds.append)
    return seconds


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "folder" / "stages.jsonl"


def stages(prompt: str) -> tuple[str, ...]:
    return f"{prompt} 1", f"{prompt} 2", f"{prompt} 3"


# ---------------------------------------------------------------- asking


def test_each_prompt_is_asked_for_once_and_never_again(cache):
    app = Completions((200, stated))
    with running(app) as url:
        writer = Endpoint(f"{url}/v1/", "writer-1", str(cache), temperature=0.5)
        assert writer.write(["a cat", "猫", "a cat"]) == [stages("a cat"), stages("猫"), stages("a cat")]
        assert writer.write(["猫", "a dog"]) == [stages("猫"), stages("a dog")]
        assert app.asked == ["a cat", "猫", "a dog"]
        assert set(app.paths) == {"/v1/chat/completions"}
        assert {(request["model"], request["temperature"]) for request in app.requests} == {("writer-1", 0.5)}
        assert all("coarse" in request["messages"][0]["content"] for request in app.requests)
    # the endpoint is gone, and the run is repeated
    assert Endpoint("http://127.0.0.1:9", "writer-1", str(cache)).write(["a dog", "a cat"])[1] == stages("a cat")
    assert StageFile(str(cache)).write(["猫"]) == [stages("猫")]


def test_a_line_of_one_s_own_is_taken_before_asking(cache):
    cache.parent.mkdir()
    cache.write_text('{"prompt": "a cat", "stages": ["my", "own"]}\n')
    app = Completions((200, stated))
    with running(app) as url:
        assert Endpoint(url, "writer-1", str(cache)).write(["a cat", "a dog"]) == [("my", "own"), stages("a dog")]
    assert app.asked == ["a dog"]
    assert len(cache.read_text().splitlines()) == 2


def test_the_answers_of_another_model_are_not_mixed_in(cache):
    with running(Completions((200, stated))) as url:
        Endpoint(url, "writer-1", str(cache)).write(["a cat"])
        with pytest.raises(ValueError, match="by the model writer-1, and model is writer-2; set cache to another file"):
            Endpoint(url, "writer-2", str(cache)).write(["a dog"])


def test_it_writes_the_stages_of_data(cache):
    with running(Completions((200, stated))) as url:
        data = DCoT(Prompts(["a cat"]), Endpoint(url, "writer-1", str(cache)))
        assert data.read("train")[0].stages == stages("a cat")


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "fault",
    [
        (429, {"error": "slow down"}),
        (503, b"starting"),
        (200, b"no json"),
        (200, {"choices": []}),
        (200, completion(None)),
        (200, completion("I cannot do that.")),
        (200, completion('{"coarse": "a", "mid": "b"}')),
        (200, completion('{"coarse": "a", "mid": "b", "fine": " "}')),
        (200, completion('{"coarse": "a", "mid": ["b"], "fine": "c"}')),
        (200, completion('{"coarse": "a \\ud83d", "mid": "b", "fine": "c"}')),
        (200, b"[" * 100_000),
        (200, completion("{" + '"a":[' * 100_000 + "}")),
    ],
)
def test_a_fault_that_passes_is_outlived(cache, waits, fault):
    app = Completions(fault, fault, (200, stated))
    with running(app) as url:
        assert Endpoint(url, "writer-1", str(cache), delay=0.5).write(["a cat"]) == [stages("a cat")]
    assert app.asked == ["a cat"] * 3
    assert waits == [0.5, 1.0]


def test_one_that_stays_is_stated_and_no_answer_before_it_is_lost(cache, waits):
    app = Completions((200, stated), (200, stated), (200, completion("no")))
    with running(app) as url:
        writer = Endpoint(url, "writer-1", str(cache), retries=2)
        with pytest.raises(
            ConnectionError, match=r"no stages of the prompt 'c' in 3 attempts, at last: the answer holds no"
        ):
            writer.write(["a", "b", "c"])
        assert waits == [1.0, 2.0]
        app.answers = [(200, stated)]
        assert writer.write(["a", "b", "c"]) == [stages("a"), stages("b"), stages("c")]
    assert app.asked == ["a", "b", "c", "c", "c", "c"]


def test_an_endpoint_that_is_not_there_or_silent(cache):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConnectionError, match="in 1 attempts, at last: timed out"):
            Endpoint(url, "writer-1", str(cache), timeout=0.05, retries=0).write(["a"])
    with pytest.raises(ConnectionError, match="Connection refused"):
        Endpoint(url, "writer-1", str(cache), retries=0).write(["a"])
    assert not cache.exists()


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "set the environment variable MY_KEY"), (404, "check url and model")]
)
def test_a_refusal_is_not_repeated(cache, waits, status, hint):
    app = Completions((status, {"error": "no"}))
    with running(app) as url, pytest.raises(ValueError, match=f"refuses with status {status}.*{hint}"):
        Endpoint(url, "writer-1", str(cache), key="MY_KEY").write(["a"])
    assert (len(app.requests), waits) == (1, [])


@pytest.mark.parametrize(
    ("settings", "stated"),
    [
        ({"url": "localhost:8000"}, "begins with http"),
        ({"timeout": 0}, "timeout > 0"),
        ({"retries": -1}, "retries >= 0"),
        ({"temperature": -1}, "temperature: expected a number >= 0, found -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(cache, settings, stated):
    with pytest.raises(ValueError, match=stated):
        Endpoint(**{"url": "http://x", "model": "writer-1", "cache": str(cache), **settings})


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\u0085", "\u001c", "\r", "\n"])
def test_the_cache_is_read_as_it_was_written(cache, sign):
    """Signs at which text is sometimes cut into lines, in a prompt and in an answer."""
    prompts = [f"a boat{sign}at sea", f" a lamp{sign} "]
    answer = completion(json.dumps({"coarse": f"1{sign}1", "mid": "2", "fine": "3"}))
    with running(Completions((200, answer))) as url:
        written = Endpoint(url, "writer-1", str(cache)).write(prompts)
    # the endpoint is gone
    assert Endpoint("http://127.0.0.1:9", "writer-1", str(cache)).write(prompts) == written == [("1 1", "2", "3")] * 2
    assert StageFile(str(cache)).write(prompts) == written


def test_long_prompts_are_cut_in_messages(cache):
    with running(Completions((200, b"no json"))) as url, pytest.raises(ConnectionError) as error:
        Endpoint(url, "writer-1", str(cache), retries=0).write(["x" * 104_000])
    assert f"'{'x' * 79}…' in 1 attempts" in str(error.value)


def test_requests_to_this_machine_go_through_no_proxy(cache, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with running(Completions((200, stated))) as url:
        assert Endpoint(url, "writer-1", str(cache)).write(["a"]) == [stages("a")]
    # others do
    with pytest.raises(ConnectionError, match="Connection refused"):
        Endpoint("http://192.0.2.1/v1", "writer-1", str(cache), retries=0).write(["b"])


# ---------------------------------------------------------------- the key


def test_the_key_is_sent_and_kept_nowhere(cache, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret-123")
    app = Completions((200, stated), (401, {"error": "no"}))
    with running(app) as url:
        writer = Endpoint(url, "writer-1", str(cache), key="MY_KEY")
        writer.write(["a"])
        with pytest.raises(ValueError, match="refuses") as refused:
            writer.write(["b"])
    assert app.headers[0]["authorization"] == "Bearer secret-123"
    kept = [cache.read_text(), str(refused.value), json.dumps(app.requests), str(vars(writer))]
    assert not any("secret" in text for text in kept)
    assert b"secret" not in pickle.dumps(writer)


def test_without_a_key_none_is_sent(cache, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    app = Completions((200, stated))
    with running(app) as url:
        Endpoint(url, "writer-1", str(cache)).write(["a"])
    assert "authorization" not in app.headers[0]
