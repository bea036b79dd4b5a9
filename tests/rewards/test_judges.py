"""The example of two judges: its commands start two servers, its health checks find them, and a training asks both."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from runpy import run_module
from time import sleep
from typing import Any

import pytest
import torch
import yaml

from rlr.estimators import HalfOrder
from rlr.rewards import Brightness, Combine, JPEGIncompressibility, Remote
from rlr.rewards.remote.health import health, main
from rlr.rewards.remote.token import VARIABLE
from tests.modules.toy import align, prompts, run, weights
from tests.rewards.server import Scripted, running, serving
from tests.rewards.test_config import instantiate

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "scripts" / "judges.yaml").read_text())["services"]
MODEL = yaml.safe_load((ROOT / "configs" / "image" / "sd35_grpo_judges.yaml").read_text())["model"]["init_args"]
TOKEN = "a-token-of-twenty-four-c"
SMALL = {"ocr": "Brightness", "hpsv3": "JPEGIncompressibility"}
"""Rewards that take the place of those that need weights or engines."""


def port(service: dict[str, Any]) -> str:
    """The port that a service publishes, on the loopback address alone."""
    ((host, outer, inner),) = (entry.split(":") for entry in service["ports"])
    assert (host, outer) == ("127.0.0.1", inner)
    return inner


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def runnable(words: list[str], service: dict[str, Any], free: str) -> list[str]:
    """What follows Python in a command of the file, with a free port instead of the published one."""
    assert words[:2] == ["python", "-m"]
    assert any(port(service) in word for word in words)
    return [word.replace(port(service), free) for word in words[1:]]


def served(name: str, free: str) -> list[str]:
    """What follows Python in a service's command, of a small reward."""
    command = runnable(SERVICES[name]["command"], SERVICES[name], free)
    return [*command, f"--reward={SMALL[name]}", "--device=cpu", "--host=127.0.0.1"]


def as_module(words: list[str]) -> None:
    """Does here what Python does with ``-m``, and exits."""
    sys.argv = words[1:]
    run_module(words[1], run_name="__main__", alter_sys=True)


def serve(words: list[str]) -> None:
    """Serves in a forked process, which need not import again what this one has imported."""
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    as_module(words)


@contextmanager
def started(name: str, free: str) -> Iterator[Callable[[], bool]]:
    """Whether the server that a service's command starts still runs."""
    with subprocess.Popen([sys.executable, *served(name, free)], cwd=ROOT) as process:
        try:
            yield lambda: process.poll() is None
        finally:
            process.terminate()


@contextmanager
def forked(name: str, free: str) -> Iterator[Callable[[], bool]]:
    """The same in a forked process."""
    process = get_context("fork").Process(target=serve, args=(served(name, free),))
    process.start()
    try:
        yield process.is_alive
    finally:
        process.terminate()
        process.join()


def wait(url: str, runs: Callable[[], bool]) -> str:
    """The label of a server, once it answers."""
    while True:
        try:
            return health(url)
        except ConnectionError:
            assert runs()
            sleep(0.1)


class Rounded(Brightness):
    """The brightness of what is sent."""

    def forward(self, samples, words):
        return super().forward((samples * 255).round() / 255, words)


@pytest.mark.filterwarnings("ignore:.*fork.*", "ignore:.*found in sys.modules.*")
def test_two_processes_judge_an_update(monkeypatch, capsys):
    """One by its command in a Python of its own, the other by the same words in a forked process."""
    monkeypatch.setenv(VARIABLE, TOKEN)
    monkeypatch.setattr(sys, "argv", [])
    ports, asked = {name: free_port() for name in SERVICES}, json.dumps(MODEL["reward"])
    for name, free in ports.items():
        asked = asked.replace(port(SERVICES[name]), free)
    with ExitStack() as stack:
        ways = zip(ports.items(), (started, forked), strict=True)
        processes = {name: stack.enter_context(way(name, free)) for (name, free), way in ways}
        for name, runs in processes.items():
            assert wait(f"http://127.0.0.1:{ports[name]}", runs) == SMALL[name]
            check = SERVICES[name]["healthcheck"]["test"]
            assert check[0] == "CMD"
            capsys.readouterr()
            with pytest.raises(SystemExit) as left:
                as_module(runnable(check[1:], SERVICES[name], ports[name]))
            assert (left.value.code, capsys.readouterr().out) == (0, f"{SMALL[name]}\n")
        reward = instantiate(json.loads(asked))
        assert all(isinstance(part, Remote) for part in reward.rewards)
        judged = align(reward=reward, estimator=HalfOrder(2))
        trainer = run(judged, prompts())
    assert {"reward/ocr", "reward/hpsv3"} <= trainer.callback_metrics.keys()
    alone = align(
        reward=Combine({"ocr": Rounded(), "hpsv3": JPEGIncompressibility()}, MODEL["reward"]["init_args"]["weights"]),
        estimator=HalfOrder(2),
    )
    before = weights(alone)
    run(alone, prompts())
    assert torch.equal(weights(judged), weights(alone))
    assert not torch.equal(weights(alone), before)


def test_the_training_asks_the_judges_that_are_started():
    rewards = MODEL["reward"]["init_args"]["rewards"]
    urls = {name: f"http://127.0.0.1:{port(service)}" for name, service in SERVICES.items()}
    assert {name: reward["init_args"]["url"] for name, reward in rewards.items()} == urls
    assert MODEL["estimator"]["init_args"]["statistics"]["init_args"]["weights"].keys() == SERVICES.keys()
    assert len(set(urls.values())) == 2


@pytest.mark.parametrize("name", SERVICES)
def test_a_judge_that_other_machines_reach_has_a_token(name):
    service = SERVICES[name]
    assert "--host=0.0.0.0" in service["command"]
    assert f"--port={port(service)}" in service["command"]
    # the engine refuses to start it without one
    assert service["environment"][VARIABLE].startswith("${" + VARIABLE + ":?")


def test_a_health_check_shows_the_token_and_repeats_it_nowhere(monkeypatch, capsys):
    monkeypatch.setenv(VARIABLE, TOKEN)
    with serving(Brightness(), TOKEN, None) as url:
        assert main(["--url", url]) == 0
        assert capsys.readouterr().out == "Brightness\n"
        monkeypatch.setenv(VARIABLE, TOKEN[::-1])
        assert main(["--url", url]) == 1
    stated = capsys.readouterr().err
    assert stated.startswith("error: ")
    assert "the token is missing or wrong" in stated
    assert TOKEN[::-1] not in stated


def test_a_server_that_is_not_there_or_another_one_is_unhealthy(monkeypatch, capsys):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert main(["--url", f"http://127.0.0.1:{free_port()}", "--timeout=1"]) == 1
    for facts in ({"status": "ok"}, {"label": 5}, [1]):
        with running(Scripted(facts=facts)) as url:
            assert main(["--url", url]) == 1
        assert "expected the label of a reward" in capsys.readouterr().err
