"""The board: time to reward of every method, on each track."""

from collections.abc import Sequence
from typing import ClassVar

from experiments.base import Figure, Row, Run, Table
from experiments.board.base import TrackExperiment
from experiments.board.report import Board
from experiments.board.tracks import TRACK_A, TRACK_B
from experiments.board.tuning import BoardTuning, BoardTuningA, BoardTuningB
from experiments.methods import Method
from experiments.settings import Setting


class BoardExperiment(TrackExperiment):
    """Runs of every method and training seed, each with the learning rate of the method."""

    evaluation = "experiments/configs/board.yaml"
    tuning: ClassVar[type[BoardTuning]]

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        """Returns the runs of the methods whose learning rate is selected, the first seed of all methods first."""
        self.check(setting)
        tries = self.tuning().tries(setting)
        selected = {name: found.selected for name, found in tries.items()}
        return [
            self.run(setting, method, value, seed)
            for seed in seeds
            for method in self.methods()
            if (value := selected.get(method.name)) is not None
        ]

    def run(self, setting: Setting, method: Method, value: str, seed: int) -> Run:
        """Returns the run of a method with a learning rate."""
        return self.training(setting, method, value, seed, self.track.points(method), {"seed": seed})

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        return Board(self.track, rows).report()


class BoardA(BoardExperiment):
    """Track A, a differentiable reward."""

    name = "board_a"
    title = "Time to reward, track A: a differentiable reward"
    note = Board.note(TRACK_A)
    track, tuning = TRACK_A, BoardTuningA


class BoardB(BoardExperiment):
    """Track B, a black-box reward."""

    name = "board_b"
    title = "Time to reward, track B: a black-box reward"
    note = Board.note(TRACK_B)
    track, tuning = TRACK_B, BoardTuningB
