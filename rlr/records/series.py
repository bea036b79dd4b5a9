"""Values against updates, and what is made of them to be drawn."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

MOST = 400
"""The most points of a drawn line: about one each pixel of a plot."""


@dataclass(frozen=True)
class Series:
    """Values, each after a number of updates.

    Args:
        at: The numbers of updates, in ascending order.
        values: The values.
    """

    at: tuple[float, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> Self:
        """Returns the series of pairs; of several values after the same update, the last counts."""
        last = sorted(dict(pairs).items())
        return cls(tuple(at for at, _ in last), tuple(value for _, value in last))

    def __len__(self) -> int:
        return len(self.at)

    def finite(self) -> "Series":
        """Returns the part with finite values."""
        return Series.of((x, y) for x, y in zip(self.at, self.values, strict=True) if math.isfinite(y))

    def smoothed(self, window: int | None = None) -> "Series":
        r"""Returns the centered moving mean :math:`\bar y_t = (2 h_t + 1)^{-1} \sum_{|s - t| \le h_t} y_s`.

        Near an end the window shrinks on both sides, :math:`h_t = \min(h, t, n - 1 - t)`: a straight line stays as it is, and
        no value is shifted along the axis.

        Args:
            window: The number :math:`2 h + 1` of values, by default a tenth of all, and at least five.
        """
        y = np.asarray(self.values, dtype=np.float64)
        half = (max(5, len(y) // 10) if window is None else window - 1) // 2
        total = np.concatenate([[0.0], np.cumsum(y)])
        t = np.arange(len(y))
        h = np.minimum(half, np.minimum(t, len(y) - 1 - t))
        means = (total[t + h + 1] - total[t - h]) / (2 * h + 1)
        return Series(self.at, tuple(means.tolist()))

    def thinned(self, most: int = MOST) -> "Series":
        """Returns means of neighbors, at most ``most`` of them."""
        if len(self) <= most:
            return self
        parts = [
            [part.mean() for part in np.array_split(np.asarray(values, dtype=np.float64), most)]
            for values in (self.at, self.values)
        ]
        return Series(tuple(map(float, parts[0])), tuple(map(float, parts[1])))

    def against(self, axis: Callable[[float], float]) -> "Series":
        """Returns the series with another quantity in the place of the updates."""
        return Series.of((axis(at), value) for at, value in zip(self.at, self.values, strict=True))

    def accumulated(self) -> "Series":
        """Returns the sums of the values so far."""
        return Series(self.at, tuple(np.cumsum(np.nan_to_num(self.values)).tolist()))

    def value_at(self, at: float) -> float:
        """Returns the value between the neighbors of a place, on the straight line through them; at an end, the last one."""
        return float(np.interp(at, self.at, self.values)) if self.at else math.nan
