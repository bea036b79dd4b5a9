"""The learning rate of each method of the board: its best tries again, with runs as long as those of the board.

A learning rate that is best in a short run may be too large for a long one.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from experiments.base import Figure, Row, Run, Table
from experiments.board.base import TrackExperiment
from experiments.board.report import MISSING
from experiments.board.tracks import TRACK_A, TRACK_B, TRACK_FLOW, Track, late_points
from experiments.board.tuning import (
    FINALISTS,
    SEED,
    BoardTuning,
    BoardTuningA,
    BoardTuningB,
    BoardTuningFlow,
    end_table,
    ranked,
    score,
    score_table,
)
from experiments.methods import Method
from experiments.results import Results
from experiments.settings import Setting


def rule(track: Track) -> str:
    """Returns the rule of selection, for the page."""
    return (
        f"The {FINALISTS} best values of each method's first tries again, with {track.samples} samples, as on the board; seed "
        f"{SEED} and the captions are those of the first tries. The score of a try is the mean of the held-out {track.judge} "
        "after a half, three quarters and all of the run; the board has the value with the largest score, of equal ones the "
        "smallest."
    )


class BoardFinals(TrackExperiment):
    """The held-out score of the best values of each method over the length of the board."""

    evaluation = "experiments/configs/board_tuning.yaml"
    first: ClassVar[type[BoardTuning]]
    """The tries that select the values."""

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        """Returns the runs of the methods whose first tries are measured; the seeds have no effect."""
        first = self.first()
        tries = first.tries(setting)
        return [
            self.run(setting, method, value) for method in first.methods() for value in tries[method.name].finalists
        ]

    def run(self, setting: Setting, method: Method, value: str) -> Run:
        """Returns the run of a value."""
        points = late_points(method, self.track.samples)
        return self.training(setting, method, value, SEED, points, {"value": value})

    def selected(self, setting: Setting) -> dict[str, str]:
        """Returns the learning rate of each method whose runs are all measured."""
        runs, results = self.runs(setting, ()), Results.of(setting, self.name)
        found = {
            name: {str(run.key["value"]): results.rows([run]) for run in runs if run.key["method"] == name}
            for name in {str(run.key["method"]) for run in runs}
        }
        return {
            name: ranked({value: score(rows, self.track.judge) for value, rows in tried.items()})[0]
            for name, tried in found.items()
            if all(tried.values())
        }

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        return [score_table(rows, self.track, "selected", _selected), end_table(rows, self.track)]


def _selected(scores: Mapping[str, float]) -> str:
    return f"{float(ranked(scores)[0]):g}" if len(scores) == FINALISTS else MISSING


class BoardFinalsA(BoardFinals):
    """The runs of track A."""

    name = "board_finals_a"
    title = "The learning rate of each method of track A"
    track, first = TRACK_A, BoardTuningA
    note = rule(TRACK_A)


class BoardFinalsB(BoardFinals):
    """The runs of track B."""

    name = "board_finals_b"
    title = "The learning rate of each method of track B"
    track, first = TRACK_B, BoardTuningB
    note = rule(TRACK_B)


class BoardFinalsFlow(BoardFinals):
    """The runs of the track of the flow."""

    name = "board_finals_flow"
    title = "The learning rate of each method of the track of the flow"
    track, first = TRACK_FLOW, BoardTuningFlow
    note = rule(TRACK_FLOW)
