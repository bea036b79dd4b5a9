"""A track of the board with a model that takes no time."""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import pytest

from experiments.board.board import BoardExperiment
from experiments.board.finals import BoardFinals
from experiments.board.methods import Entry
from experiments.board.queue import main
from experiments.board.report import Board
from experiments.board.tracks import Track
from experiments.board.tuning import BoardTuning
from experiments.methods import Method, Target
from experiments.settings import TINY, Setting

TRACK = Track(
    "toy",
    "a toy",
    Target("Brightness", "Brightness", overrides=("model.init_args.reward=Brightness",)),
    gold=(("diversity", "diversity"),),
    judge="Brightness",
    samples=16,
    every=8,
    tuning_samples=16,
    gain=0.01,
    seconds=1.0,
)
CONFIG = "tests/experiments/toy_run.yaml"
RATES = ("1.0e-2", "3.0e-2", "1.0e-1")
SLOW, FAST = (Method(name, CONFIG, samples=4, rates=RATES) for name in ("slow", "fast"))
ENTRIES = (Entry(SLOW, (TRACK,)), Entry(FAST, (TRACK,), decisive=True))
EVALUATION = "tests/experiments/toy_evaluation.yaml"


class ToyTuning(BoardTuning):
    name, title = "toy_tuning", "Toy"
    track, entries, evaluation = TRACK, ENTRIES, EVALUATION


class ToyFinals(BoardFinals):
    name, title = "toy_finals", "Toy"
    track, entries, evaluation = TRACK, ENTRIES, EVALUATION
    first: ClassVar[type[BoardTuning]] = ToyTuning


class ToyBoard(BoardExperiment):
    name, title, note = "toy_board", "Toy", Board.note(TRACK)
    track, entries, evaluation = TRACK, ENTRIES, EVALUATION
    finals: ClassVar[type[BoardFinals]] = ToyFinals


@pytest.fixture
def setting(tmp_path) -> Setting:
    return replace(TINY, results=tmp_path / "results", runs=tmp_path / "runs")


@pytest.fixture
def queue(setting) -> Callable[..., int]:
    """The command line of the queue, which knows the toys alone."""
    known = {"toy_tuning": ToyTuning, "toy_finals": ToyFinals, "toy_board": ToyBoard}
    return lambda *arguments: main(arguments, setting, known)
