from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from experiments.cli import main
from experiments.results import Results
from experiments.scales import ROOT, TINY, Scale
from rlr.cli import main as train
from tests.experiments.toy import Toy


@pytest.fixture
def scale(tmp_path: Path) -> Scale:
    """The tiny set, in a folder of its own."""
    return replace(TINY, results=tmp_path / "results", runs=tmp_path / "runs")


@pytest.fixture
def results(scale: Scale) -> Results:
    return Results.of(scale, "toy")


@pytest.fixture
def run(scale: Scale, monkeypatch) -> Callable[..., int]:
    """The command line, which knows the toy alone."""
    for name, value in (("factor", 10), ("broken", set()), ("worked", [])):
        monkeypatch.setattr(Toy, name, value)
    return lambda *words: main(["toy", *words], experiments=(Toy,), scales={"tiny": scale})


@pytest.fixture
def printed(capsys, monkeypatch) -> Callable[[list[str]], dict]:
    """Returns what the command line makes of some words."""

    def parsed(words: list[str]) -> dict:
        monkeypatch.chdir(ROOT)
        with pytest.raises(SystemExit) as exit_:
            train([*words, "--print_config"])
        assert exit_.value.code == 0, words
        return yaml.safe_load(capsys.readouterr().out)

    return parsed
