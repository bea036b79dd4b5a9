"""The tries of each method of the board: the same number for all, in shorter runs, and a fixed rule that selects finalists."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from experiments.base import Figure, Row, Run, Table
from experiments.board.base import TrackExperiment
from experiments.board.tracks import TRACK_A, TRACK_B, TRACK_FLOW, Track, late_points
from experiments.methods import Method
from experiments.results import Results
from experiments.settings import Setting
from experiments.summary import grouped, mean_of, numbers

SEED = 100
"""The training seed, which the board does not use."""
EXTENSIONS = 2
"""The largest number of further tries of a method whose best value is at the edge of its grid."""
FINALISTS = 2
"""The number of values of a method that are tried again, with runs as long as those of the board."""


def score(rows: Sequence[Row], label: str) -> float:
    """Returns the worth of a try: the mean of a held-out measurement over the evaluations in the second half of the run.

    A run that has collapsed by its end is worth less than one that has not. A value that is not finite is worth less than any.

    Args:
        rows: The rows of the run.
        label: The name of the measurement.
    """
    second_half = [row for row in rows if float(row["update"]) > 0]
    values = numbers(second_half, label)
    return fmean(values) if values and all(map(math.isfinite, values)) else -math.inf


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Returns the values by falling score; of equal ones, the smallest first.

    Args:
        scores: The score of each value that was tried.
    """
    return sorted(scores, key=lambda value: (-scores[value], float(value)))


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
        f"held-out {track.judge} after a half, three quarters and all of the run. The {FINALISTS} values with the largest "
        "scores, of equal ones the smallest, are tried again over the length of the board. If the best is at the edge of the "
        f"grid, up to {EXTENSIONS} further values follow, each about three times as large or as small. A dash is a try that "
        "was not measured, −∞ a measurement that is not finite."
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
            further = extension(grid, ranked({value: scores[value] for value in grid})[0])
            if further is None:
                break
            grid = tuple(sorted((*grid, further), key=float))
        return cls(grid, {value: scores[value] for value in grid if value in scores})

    @property
    def finalists(self) -> list[str]:
        """The best values, the best first; none if a try is missing."""
        return ranked(self.scores)[:FINALISTS] if len(self.scores) == len(self.grid) else []


class BoardTuning(TrackExperiment):
    """The held-out score of each method and learning rate, on captions and a seed of their own."""

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
        return self.training(
            setting, method, value, SEED, late_points(method, self.track.tuning_samples), {"value": value}
        )

    def tries(self, setting: Setting) -> dict[str, Tries]:
        """Returns the tries of each method, as far as they are measured."""
        results = Results.of(setting, self.name)
        return {method.name: self._tries(setting, results, method) for method in self.methods()}

    def _tries(self, setting: Setting, results: Results, method: Method) -> Tries:
        values = [str(line["value"]) for line in results.lines if line.get("method") == method.name]
        runs = {value: self.run(setting, method, value) for value in dict.fromkeys((*method.rates, *values))}
        rows = {value: results.rows([run]) for value, run in runs.items()}
        return Tries.of(method, {value: score(found, self.track.judge) for value, found in rows.items() if found})

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        return [score_table(rows, self.track, "finalists", _finalists), end_table(rows, self.track)]


def score_table(rows: Sequence[Row], track: Track, chosen: str, choice: Callable[[Mapping[str, float]], str]) -> Table:
    """Returns the scores of the tries by method and value.

    Args:
        rows: The rows of the tries.
        track: The track.
        chosen: The head of the column with the choice.
        choice: Returns the choice from the scores of a method's values, as text.
    """
    values = sorted({str(row["value"]) for row in rows}, key=float)
    lines = []
    for (name,), group in grouped(rows, "method").items():
        scores = {str(value): score(tried, track.judge) for (value,), tried in grouped(group, "value").items()}
        lines.append((str(name), *(_text(scores.get(value)) for value in values), choice(scores), str(len(scores))))
    head = ("method", *(f"{float(value):g}" for value in values), chosen, "tries")
    return Table(f"Score of a try by learning rate: {track.judge}", head, lines)


def _finalists(scores: Mapping[str, float]) -> str:
    best, *others = (f"{float(value):g}" for value in ranked(scores)[:FINALISTS])
    edge = " (at the edge)" if float(best) in (min(map(float, scores)), max(map(float, scores))) else ""
    return ", ".join([best + edge, *others])


def end_table(rows: Sequence[Row], track: Track) -> Table:
    """Returns the measurements at the end of each try."""
    names = track.measurements
    ends = [max(group, key=lambda row: float(row["update"])) for group in grouped(rows, "method", "value").values()]
    lines = [
        (str(row["method"]), f"{float(row['value']):g}", *(mean_of([row], name, 3) for name in names)) for row in ends
    ]
    return Table("At the end of each try", ("method", "learning rate", *names), lines)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if math.isfinite(value) else "−∞"


class BoardTuningA(BoardTuning):
    """The tries of track A."""

    name = "board_tuning_a"
    title = "The first tries of each method of track A"
    track = TRACK_A
    note = rule(TRACK_A)


class BoardTuningB(BoardTuning):
    """The tries of track B."""

    name = "board_tuning_b"
    title = "The first tries of each method of track B"
    track = TRACK_B
    note = rule(TRACK_B)


class BoardTuningFlow(BoardTuning):
    """The tries of the track of the flow."""

    name = "board_tuning_flow"
    title = "The first tries of each method of the track of the flow"
    track = TRACK_FLOW
    note = rule(TRACK_FLOW)
