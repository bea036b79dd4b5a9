from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.results import Results
from experiments.scales import TINY, Scale
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
