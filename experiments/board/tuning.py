"""The learning rate of each method of the board: the same number of tries for all, and a fixed rule of selection."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from experiments.base import Figure, Row, Run, Table
from experiments.board.base import TrackExperiment
from experiments.board.tracks import TRACK_A, TRACK_B, Track
from experiments.methods import Method
from experiments.results import Results
from experiments.settings import Setting
from experiments.summary import grouped, mean_of, numbers

SEED = 100
"""The training seed, which the board does not use."""
EXTENSIONS = 2
"""The largest number of further tries of a method whose best value is at the edge of its grid."""


def score(rows: Sequence[Row], track: Track) -> float:
    """Returns the worth of a try: the mean held-out reward of the evaluations in the second half of the run.

    A run that has collapsed by its end is worth less than one that has not. A reward that is not finite is worth less than any.
    """
    second_half = [row for row in rows if float(row["update"]) > 0]
    rewards = numbers(second_half, track.target.label)
    return fmean(rewards) if rewards and all(map(math.isfinite, rewards)) else -math.inf


def select(scores: Mapping[str, float]) -> str:
    """Returns the value with the largest score; of several, the smallest.

    Args:
        scores: The score of each value that was tried.
    """
    return max(scores, key=lambda value: (scores[value], -float(value)))


def extension(values: Sequence[str], best: str) -> str | None:
    """Returns the next value beyond the edge of a grid if the best one is at the edge, and None otherwise.

    Args:
        values: The grid: increasing powers of ten, and three times powers of ten.
        best: The best of its values.
    """
    if best not in (values[0], values[-1]):
        return None
    digit, exponent = best.split("e")
    larger = best == values[-1]
    if digit.startswith("1"):
        return f"3.0e{int(exponent)}" if larger else f"3.0e{int(exponent) - 1}"
    return f"1.0e{int(exponent) + 1}" if larger else f"1.0e{int(exponent)}"


def rule(track: Track) -> str:
    """Returns the rule of selection, for the page."""
    return (
        f"One run of seed {SEED} for each method and value, on captions that neither the board nor the demo uses. Every method "
        f"gets the same number of tries, each of {track.tuning_samples} samples. The score of a try is the mean of the "
        "held-out reward after a half, three quarters and all of the run; the largest score is selected, and of equal ones "
        f"that of the smallest value. If it is at the edge of the grid, up to {EXTENSIONS} further values follow, each "
        "about three times as large or as small. A dash is a try that was not measured, −∞ a reward that is not finite."
    )


@dataclass(frozen=True)
class Tries:
    """The tries of one method.

    Args:
        grid: All values: those of the method, and values beyond the edge.
        scores: The scores of the measured ones.
    """

    grid: tuple[str, ...]
    scores: Mapping[str, float]

    @classmethod
    def of(cls, method: Method, scores: Mapping[str, float]) -> "Tries":
        """Returns the tries that these scores ask for."""
        grid = method.rates
        while len(grid) < len(method.rates) + EXTENSIONS and all(value in scores for value in grid):
            further = extension(grid, select({value: scores[value] for value in grid}))
            if further is None:
                break
            grid = tuple(sorted((*grid, further), key=float))
        return cls(grid, {value: scores[value] for value in grid if value in scores})

    @property
    def selected(self) -> str | None:
        """The best value, or None if a try is missing."""
        return select(self.scores) if len(self.scores) == len(self.grid) else None

    @property
    def at_edge(self) -> bool:
        """Whether the best value is at the edge of all that was tried."""
        return self.selected in (self.grid[0], self.grid[-1])


class BoardTuning(TrackExperiment):
    """The held-out reward of each method and learning rate, on captions and a seed of their own."""

    evaluation = "experiments/configs/board_tuning.yaml"

    def methods(self) -> list[Method]:
        """Returns the configured methods of the track that have tries of their own."""
        return [entry.method for entry in self.of_track() if not entry.rate_of]

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        """Returns the tries, the first value of every method first; the seeds have no effect."""
        self.check(setting)
        found = self.tries(setting)
        order = sorted(
            ((k, method, value) for method in self.methods() for k, value in enumerate(found[method.name].grid)),
            key=lambda entry: entry[0],
        )
        return [self.run(setting, method, value) for _, method, value in order]

    def run(self, setting: Setting, method: Method, value: str) -> Run:
        """Returns a try."""
        return self.training(setting, method, value, SEED, self.track.tuning_points(method), {"value": value})

    def tries(self, setting: Setting) -> dict[str, Tries]:
        """Returns the tries of each method, as far as they are measured."""
        results = Results.of(setting, self.name)
        return {method.name: self._tries(setting, results, method) for method in self.methods()}

    def _tries(self, setting: Setting, results: Results, method: Method) -> Tries:
        values = [str(line["value"]) for line in results.lines if line.get("method") == method.name]
        runs = {value: self.run(setting, method, value) for value in dict.fromkeys((*method.rates, *values))}
        rows = {value: results.rows([run]) for value, run in runs.items()}
        return Tries.of(method, {value: score(found, self.track) for value, found in rows.items() if found})

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        values = sorted({str(row["value"]) for row in rows}, key=float)
        lines = []
        for (name,), group in grouped(rows, "method").items():
            scores = {str(value): score(tried, self.track) for (value,), tried in grouped(group, "value").items()}
            best = select(scores)
            edge = ", at the edge" if best in (min(scores, key=float), max(scores, key=float)) else ""
            lines.append(
                (str(name), *(_text(scores.get(value)) for value in values), f"{float(best):g}{edge}", str(len(scores)))
            )
        head = ("method", *(f"{float(value):g}" for value in values), "best", "tries")
        return [Table(f"Score of a try by learning rate: {self.track.target.name}", head, lines), self._gold(rows)]

    def _gold(self, rows: Sequence[Row]) -> Table:
        names = [self.track.target.label, *(label for label, _ in self.track.gold), "diversity"]
        ends = [max(group, key=lambda row: float(row["update"])) for group in grouped(rows, "method", "value").values()]
        lines = [
            (str(row["method"]), f"{float(row['value']):g}", *(mean_of([row], name, 3) for name in names))
            for row in ends
        ]
        return Table("At the end of each try", ("method", "learning rate", *names), lines)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if math.isfinite(value) else "−∞"


class BoardTuningA(BoardTuning):
    """The tries of track A."""

    name = "board_tuning_a"
    title = "The learning rate of each method of track A"
    track = TRACK_A
    note = rule(TRACK_A)


class BoardTuningB(BoardTuning):
    """The tries of track B."""

    name = "board_tuning_b"
    title = "The learning rate of each method of track B"
    track = TRACK_B
    note = rule(TRACK_B)
