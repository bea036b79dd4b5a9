"""The server scores one request at a time, and refuses what is malformed or too large in one sentence."""

import asyncio
import base64
import http.client
import io
import json
import pickle
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rlr.rewards import Brightness, Reward
from rlr.rewards.remote import server as serve
from rlr.rewards.remote.protocol import Limits, Refused, pack, unpack
from rlr.rewards.remote.server import Service, application, main
from tests.rewards.server import serving

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "serve").glob("*.yaml"))


def post(url: str, body: object, kind: str = "application/json", path: str = "/score", method: str = "POST"):
    """Returns status and answer; an iterable body is sent in chunks, without its length."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request(method, path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def request(*sizes: tuple[int, int], prompts: int | None = None) -> dict[str, object]:
    """A request of gray images."""
    files = [pack(torch.full((1, 3, *size), 0.5), ["a"])["samples"][0] for size in sizes]
    return {"prompts": ["a"] * (len(sizes) if prompts is None else prompts), "samples": files}


def file(mode: str, kind: str) -> str:
    buffer = io.BytesIO()
    Image.new(mode, (4, 4)).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def header(width: int, height: int) -> str:
    """A PNG file that claims a size and ends where its pixels should begin."""
    claim = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + claim + struct.pack(">I", zlib.crc32(claim))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 99) + b"IDAT").decode()


def one(sample: object) -> dict[str, object]:
    return {"prompts": ["a"], "samples": [sample]}


@pytest.fixture(scope="module")
def url():
    with serving(Brightness(), samples=3, pixels=100, bytes=30_000) as address:
        yield address


def test_health_reports_the_facts(url):
    import rlr

    status, facts = post(url, None, path="/health", method="GET")
    assert status == 200
    expected = {"label": "Brightness", "scales": {}, "higher_is_better": True, "version": rlr.__version__}
    assert facts == expected


def test_pixels_come_out_as_they_went_in():
    pixels = torch.randint(0, 256, (3, 2, 3, 5, 7), generator=torch.Generator().manual_seed(0)) / 255
    for samples in (pixels, pixels[:, 0]):
        found, words = unpack(json.dumps(pack(samples, ["ü", "b", "c"])).encode(), Limits())
        assert torch.equal(found, samples)
        assert words == ["ü", "b", "c"]


def test_the_largest_request_is_served(url):
    status, answer = post(url, json.dumps(request((5, 5), (5, 5), (5, 5))))
    assert (status, len(answer["scores"])) == (200, 3)


MALFORMED = {
    "no json": (b"{", 400, "no JSON"),
    "a pickle": (pickle.dumps({"prompts": ["a"]}), 400, "no JSON"),
    "nested too deep": (b"[" * 5000, 400, "no JSON"),
    "no object": ([1], 400, "no object with prompts"),
    "no prompts": ({"samples": ["x"]}, 400, "no object with prompts"),
    "prompts that are no strings": ({"prompts": [1], "samples": ["x"]}, 400, "no object with prompts"),
    "half a surrogate pair": (b'{"prompts": ["\\ud800"], "samples": ["x"]}', 400, "half a surrogate pair"),
    "nothing": (request(), 400, "0 prompts and 0 samples"),
    "a missing prompt": (request((2, 2), (2, 2), prompts=1), 400, "1 prompts and 2 samples"),
    "no base64": (one("%%%"), 400, "image 0: expected a whole PNG file"),
    "no picture": (one(base64.b64encode(b"hello").decode()), 400, "image 0: expected a whole PNG file"),
    "a number": (one(5), 400, "image 0: expected a whole PNG file"),
    "half a picture": (one(header(4, 4)), 400, "image 0: expected a whole PNG file"),
    "a JPEG": (one(file("RGB", "JPEG")), 400, "image 0: expected a whole PNG file"),
    "a grey picture": (one(file("L", "PNG")), 400, "image 0: expected a whole PNG file"),
    "an empty video": (one([]), 400, "one number of frames"),
    "pictures and videos": ({"prompts": ["a", "b"], "samples": ["x", ["y"]]}, 400, "one number of frames"),
    "two sizes": (request((2, 3), (3, 2)), 400, "send sizes apart"),
    "too many samples": (request(*[(2, 2)] * 4), 413, "3 are served at once"),
    "a large picture": (one(header(11, 10)), 413, "more than 100 pixels"),
    "a bomb": (one(header(60_000, 60_000)), 400, "image 0: expected a whole PNG file"),
    "many pixels together": (request((6, 6), (6, 6), (6, 6)), 413, "more than 100 pixels"),
    "a long prompt": ({"prompts": ["a" * 10_001], "samples": ["x"]}, 413, "more than 10000 characters"),
    "many frames": (one(["x"] * 4097), 413, "4097 images, and 4096 are served at once"),
    "many bytes": (b" " * 30_001, 413, "more than 30000 bytes"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_cannot_be_scored_is_refused_in_a_sentence(url, name):
    body, status, message = MALFORMED[name]
    found, answer = post(url, body if isinstance(body, bytes) else json.dumps(body))
    assert found == status
    assert list(answer) == ["error"]
    assert message in answer["error"]
    assert "\n" not in answer["error"]


def test_a_large_request_without_a_length_is_refused(url):
    status, answer = post(url, (b" " * 1000 for _ in range(31)))
    assert (status, "more than 30000 bytes" in answer["error"]) == (413, True)


def test_other_types_paths_and_methods_are_refused(url):
    good = json.dumps(request((2, 2)))
    assert post(url, good, kind="text/plain") == (415, {"error": "the request must have the type application/json"})
    for path, method, expected in (("/scores", "POST", 404), ("/score", "PUT", 405)):
        status, answer = post(url, good, path=path, method=method)
        assert (status, answer["error"].startswith(f"there is no {method} {path}")) == (expected, True)


def test_a_reward_s_own_fault_is_stated_without_its_inside():
    class Broken(Brightness):
        def forward(self, samples, prompts):
            return {}["secret"]

    with serving(Broken()) as url:
        found = post(url, json.dumps(request((2, 2))))
        assert post(url, None, path="/health", method="GET")[0] == 200
    assert found == (500, {"error": "Broken failed with a KeyError; the server's log says why"})


@pytest.mark.parametrize("scores", [torch.zeros(()), torch.zeros(2), None])
def test_a_reward_that_does_not_return_one_score_a_sample_is_stated_and_not_asked_again(scores):
    class Broken(Brightness):
        def forward(self, samples, prompts):
            return scores

    with serving(Broken()) as url:
        status, answer = post(url, json.dumps(request((2, 2))))
    assert status == 422
    assert answer["error"].startswith("the reward Broken: expected one number a sample, a tensor of shape (1,), got ")


def test_requests_are_scored_one_at_a_time_on_one_thread():
    class Watched(Brightness):
        def __init__(self) -> None:
            super().__init__()
            self.busy, self.threads = threading.Lock(), []

        def forward(self, samples, prompts):
            assert self.busy.acquire(blocking=False)
            self.threads.append(threading.get_ident())
            scores = super().forward(samples, prompts)
            self.busy.release()
            return scores

    reward = Watched()
    with serving(reward) as url, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda k: post(url, json.dumps(request((k, 2)))), range(1, 25)))
    assert {status for status, _ in answers} == {200}
    assert len(reward.threads) == 24
    assert len(set(reward.threads)) == 1


def test_a_request_that_nobody_waits_for_is_not_scored():
    scored: list[int] = []

    class Counted(Brightness):
        def forward(self, samples, prompts):
            scored.append(len(prompts))
            return super().forward(samples, prompts)

    async def ask(*messages):
        """Sends messages, then silence."""
        waiting, answers = list(messages), []

        async def receive():
            return waiting.pop(0) if waiting else await asyncio.Future()

        async def send(message):
            answers.append(message)

        scope = {"type": "http", "method": "POST", "path": "/score", "query_string": b"", "root_path": ""}
        kind = [(b"host", b"127.0.0.1:8000"), (b"content-type", b"application/json")]
        app = application(Service(Counted(), torch.device("cpu"), Limits()))
        await app({**scope, "headers": kind, "http_version": "1.1", "scheme": "http"}, receive, send)
        return answers[0]["status"]

    body = {"type": "http.request", "body": json.dumps(request((2, 2))).encode(), "more_body": False}
    assert asyncio.run(ask(body, {"type": "http.disconnect"})) == 499
    # in the middle of its request
    assert asyncio.run(ask({**body, "more_body": True}, {"type": "http.disconnect"})) == 499
    assert scored == []
    assert asyncio.run(ask(body)) == 200
    assert scored == [1]


def test_a_reward_has_no_gradient_there():
    class Grad(Brightness):
        def forward(self, samples, prompts):
            assert not torch.is_grad_enabled()
            return super().forward(samples, prompts)

    body = json.dumps(pack(torch.ones(1, 3, 2, 2), ["a"])).encode()
    assert Service(Grad(), torch.device("cpu"), Limits()).score(body) == [1.0]
    with pytest.raises(Refused):
        Service(Grad(), torch.device("cpu"), Limits(samples=0)).score(body)


# ---------------------------------------------------------------- command line


@pytest.fixture
def started(monkeypatch):
    """What would have been served, and where."""
    calls: list[tuple[Reward, dict[str, object]]] = []
    made: list[Reward] = []
    original = serve.Service.__init__

    def remember(self, reward, *rest):
        made.append(reward)
        original(self, reward, *rest)

    monkeypatch.setattr(serve.Service, "__init__", remember)
    monkeypatch.setattr(serve.uvicorn, "run", lambda app, **where: calls.append((made[-1], where)))
    return calls


def test_there_are_configs():
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_serves_its_reward(path, started):
    assert main(["--config", str(path)]) == 0
    ((reward, where),) = started
    assert isinstance(reward, Reward)
    assert where["host"] == "127.0.0.1"


def test_options_go_over_the_config(started, tmp_path):
    config = "reward: {class_path: JPEGIncompressibility, init_args: {quality: 50}}\nport: 9000\n"
    (tmp_path / "mine.yaml").write_text(config)
    assert main(["--config", str(tmp_path / "mine.yaml"), "--port=9001", "--max_waiting=5"]) == 0
    ((reward, where),) = started
    # uvicorn refuses at its limit: five are served, and the sixth connection is refused
    assert (reward.quality, where["port"], where["limit_concurrency"]) == (50, 9001, 6)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "reward"),
        (["--reward=Brightnes"], "Brightnes"),
        (["--reward=Brightness", "--port=http"], "port"),
        (["--reward=Remote", "--reward.url=nowhere"], "begins with http:// or https://"),
    ],
)
def test_a_mistake_is_one_line(args, message, started, capsys):
    try:
        status = main(args)
    except SystemExit as exit_:
        status = exit_.code
    stated = capsys.readouterr().err
    assert (status, stated.count("\n"), started) == (2, 1, [])
    assert stated.startswith("error: ")
    assert message in stated


def test_numbers_of_a_png_are_bytes():
    data = base64.b64decode(pack(torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1), ["a"])["samples"][0])
    assert np.array(Image.open(io.BytesIO(data))).tolist() == [[[0, 128, 255]]]
