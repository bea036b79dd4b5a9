from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from experiments.cli import main
from experiments.results import Results
from experiments.settings import ROOT, TINY, Setting
from rlr.cli import main as train
from tests.experiments.toy import Toy


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    """The tiny setting, in a folder of its own."""
    return replace(TINY, results=tmp_path / "results", runs=tmp_path / "runs")


@pytest.fixture
def results(setting: Setting) -> Results:
    return Results.of(setting, "toy")


@pytest.fixture
def run(setting: Setting, monkeypatch) -> Callable[..., int]:
    """The command line, which knows the toy alone."""
    for name, value in (("factor", 10), ("broken", set()), ("measured_runs", [])):
        monkeypatch.setattr(Toy, name, value)
    return lambda *arguments: main(["toy", *arguments], experiments=(Toy,), settings={"tiny": setting})


@pytest.fixture
def printed(capsys, monkeypatch) -> Callable[[list[str]], dict]:
    """Returns what the command line makes of some arguments."""

    def parsed(arguments: list[str]) -> dict:
        monkeypatch.chdir(ROOT)
        with pytest.raises(SystemExit) as exit_:
            train([*arguments, "--print_config"])
        assert exit_.value.code == 0, arguments
        return yaml.safe_load(capsys.readouterr().out)

    return parsed
