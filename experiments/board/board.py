"""The board: time to reward of every method, on each track."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from experiments.base import Figure, Row, Run, Table
from experiments.board.base import TrackExperiment
from experiments.board.finals import BoardFinals, BoardFinalsA, BoardFinalsB, BoardFinalsFlow
from experiments.board.report import Board
from experiments.board.tracks import TRACK_A, TRACK_B, TRACK_FLOW, TRACK_LONG
from experiments.board.update_seconds import UpdateSeconds, UpdateSecondsA, UpdateSecondsB, timed
from experiments.marks import CURVE, SAMPLES, marked
from experiments.methods import Method
from experiments.settings import Setting


class BoardExperiment(TrackExperiment):
    """Runs of every method and training seed, each with the learning rate of the method."""

    evaluation = "experiments/configs/board.yaml"
    finals: ClassVar[type[BoardFinals]]
    """The runs that select the learning rates."""
    seconds: ClassVar[type[UpdateSeconds] | None] = None
    """The seconds of an update; None for those of each run."""

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        """Returns the runs of the methods whose learning rate is selected, the first seed of all methods first."""
        self.check(setting)
        selected = self.finals().selected(setting)
        return [
            self.run(setting, entry.method, value, seed)
            for seed in seeds
            for entry in self.of_track()
            if (value := selected.get(entry.rate_of or entry.method.name)) is not None
        ]

    def run(self, setting: Setting, method: Method, value: str, seed: int) -> Run:
        """Returns the run of a method with a learning rate."""
        *on_the_way, end = self.track.points(method)
        run = self.training(setting, method, value, seed, (*on_the_way, end), {"seed": seed})
        columns: Row = {"model": self.track.model, "reward": self.track.target.name}
        found = marked(run, {**dict.fromkeys(on_the_way, CURVE), end: SAMPLES}, self.track.target)
        return replace(found, measure=lambda: [{**columns, **row} for row in found.measure()])

    def prepared(self, setting: Setting, rows: Sequence[Row]) -> Sequence[Row]:
        """Returns the rows with seconds of an idle machine, where they are measured."""
        return timed(rows, self.seconds().each(setting)) if self.seconds else rows

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        left_out = {entry.method.name for entry in self.entries if entry.ablation}
        return Board(self.track, [row for row in rows if row["method"] not in left_out]).report()


class BoardA(BoardExperiment):
    """Track A, a differentiable reward."""

    name = "board_a"
    title = "Time to reward, track A: a differentiable reward"
    note = f"{Board.note(TRACK_A)} {UpdateSecondsA.use()}"
    track, finals, seconds = TRACK_A, BoardFinalsA, UpdateSecondsA


class BoardB(BoardExperiment):
    """Track B, a black-box reward."""

    name = "board_b"
    title = "Time to reward, track B: a black-box reward"
    note = f"{Board.note(TRACK_B)} {UpdateSecondsB.use()}"
    track, finals, seconds = TRACK_B, BoardFinalsB, UpdateSecondsB


class BoardFlow(BoardExperiment):
    """Track A on the built-in model as a rectified flow."""

    name = "board_flow"
    title = "Time to reward on a rectified flow"
    note = Board.note(TRACK_FLOW)
    track, finals = TRACK_FLOW, BoardFinalsFlow


class BoardLong(BoardExperiment):
    """Track A on a chain of 20 steps, with the learning rates of 10 steps."""

    name = "board_long"
    title = "Time to reward, track A on a chain of 20 steps"
    note = f"{Board.note(TRACK_LONG)} The rates are those of 10 steps, and there is one seed."
    track, finals = TRACK_LONG, BoardFinalsA

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        return super().runs(setting, seeds[:1])
