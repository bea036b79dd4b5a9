r"""Held-out curves of training runs: scores at a given cost, the cost of a given score, and intervals over training seeds.

A curve is a polygon through the evaluations :math:`(c_i, s_i)` of one run, with the cost :math:`c_0 = 0` of the base model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from scipy.stats import t as student

from experiments.base import Row
from experiments.marks import SECONDS
from experiments.summary import grouped, standard_error

LEVEL = 0.95
"""The coverage of the intervals."""


@dataclass(frozen=True)
class Curve:
    """The evaluations of one run.

    Args:
        costs: The costs, which increase from 0.
        scores: The scores.
    """

    costs: Sequence[float]
    scores: Sequence[float]

    @classmethod
    def of(cls, rows: Sequence[Row], cost: str, score: str) -> "Curve":
        """Returns the curve of the rows of a run, by the names of two columns; rows without one of them are left out."""
        pairs = [(row[cost], row[score]) for row in rows if cost in row and score in row]
        points = sorted((float(c), float(s)) for c, s in pairs)
        return cls([c for c, _ in points], [s for _, s in points])

    def score_at(self, cost: float) -> float | None:
        """Returns the score at a cost, by linear interpolation; None beyond the end of the run."""
        points = list(zip(self.costs, self.scores, strict=True))
        for (c, s), (later, score) in pairwise(points):
            if c <= cost <= later:
                return s + (score - s) * (cost - c) / (later - c)
        return self.scores[0] if points and cost == self.costs[0] else None

    def cost_of(self, score: float) -> float | None:
        """Returns the cost of the first point of the polygon with a score or more, or None if there is no such point."""
        points = list(zip(self.costs, self.scores, strict=True))
        if points and self.scores[0] >= score:
            return self.costs[0]
        for (c, s), (later, reached) in pairwise(points):
            if reached >= score:
                return c + (later - c) * (score - s) / (reached - s)
        return None


def at_equal_seconds(rows: Sequence[Row]) -> list[Row]:
    """Returns a row for each run at the training seconds of the shortest run, interpolated between two evaluations.

    Args:
        rows: The rows of runs that differ in method, reward, model or seed; all others are numbers of the evaluations.
    """
    runs = [sorted(run, key=lambda row: float(row["update"])) for run in grouped(rows, *_RUN).values()]
    if not runs:
        return []
    seconds = min(float(run[-1]["step_seconds"]) for run in runs)
    return [_interpolated(run, seconds) for run in runs]


_RUN = ("model", "reward", "method", "seed", "prompts")


def _interpolated(run: Sequence[Row], seconds: float) -> Row:
    names = [name for name, value in run[-1].items() if isinstance(value, float)]
    found = {name: Curve.of(run, "step_seconds", name).score_at(seconds) for name in names}
    return {**run[-1], **{name: value for name, value in found.items() if value is not None}, "at": SECONDS}


@dataclass(frozen=True)
class Mean:
    r"""A mean over training seeds with its interval :math:`\bar x \pm t_{n - 1} s / \sqrt n` (Student's t distribution).

    Args:
        mean: The mean.
        low: The lower end; nan for fewer than two values.
        high: The upper end.
        number: The number of values.
    """

    mean: float
    low: float
    high: float
    number: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean":
        """Returns the mean of at least one value."""
        mean, n = fmean(values), len(values)
        half = student.ppf((1 + LEVEL) / 2, n - 1) * standard_error(values) if n > 1 else math.nan
        return cls(mean, mean - half, mean + half, n)
