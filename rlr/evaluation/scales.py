"""Axes of plots.

An axis must not make a small change look like a large one. What has natural bounds is drawn between them, and what has a zero from
zero. A reward has neither: its axis is at least twice as high as the standard deviation between samples. A change of a tenth of
that deviation then takes at most a twentieth of the height.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

MOST = 1e300
"""The largest value of an axis."""
DECADES = 100.0
"""The ratio of the largest to the smallest value from which an amount is drawn on a logarithmic axis."""
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
"""The distances between ticks, up to a power of ten."""


@dataclass(frozen=True)
class Axis:
    """An axis.

    Args:
        low: The value at its lower end.
        high: The value at its upper end.
        ticks: The values that are written.
        logarithmic: Whether equal distances are equal ratios.
    """

    low: float
    high: float
    ticks: Sequence[float]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Returns where a value lies, from 0 at the lower end to 1 at the upper one; what is outside lies at an end."""
        if self.logarithmic:
            low, high, value = (math.log(x) for x in (self.low, self.high, max(value, self.low)))
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def labels(self) -> list[str]:
        """Returns the texts of the ticks."""
        if self.logarithmic:
            return [f"{tick:g}" for tick in self.ticks]
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        return [label(tick, step) for tick in self.ticks]


class Scale(ABC):
    """Chooses the axis for the values of a plot."""

    @abstractmethod
    def axis(self, values: Sequence[float]) -> Axis:
        """Returns an axis.

        Args:
            values: All finite values that are drawn, those of bands included; at least one.
        """


@dataclass(frozen=True)
class Bounded(Scale):
    """The axis of a quantity with bounds, which it always shows; by default a share in [0, 1]."""

    low: float = 0.0
    high: float = 1.0

    def axis(self, values: Sequence[float]) -> Axis:
        return linear(self.low, self.high)


class Amount(Scale):
    """The axis of a quantity that is not negative: from zero, or logarithmic where the values span two orders of magnitude."""

    def axis(self, values: Sequence[float]) -> Axis:
        positive = [value for value in values if value > 0]
        if positive and max(positive) / min(positive) >= DECADES:
            first, last = (math.log10(x) for x in (min(positive), max(positive)))
            powers = range(math.floor(first), math.ceil(last) + 1)
            shown = powers[:: -(-len(powers) // 6)]
            return Axis(10.0 ** powers[0], 10.0 ** powers[-1], [10.0**p for p in shown], logarithmic=True)
        return linear(min(0.0, *values, 0.0), max(*values, 0.0) or 1.0)


@dataclass(frozen=True)
class Level(Scale):
    """The axis of a quantity without bounds and without a zero, such as a reward.

    Args:
        spread: The standard deviation between samples, in units of the quantity; None where it is not known.
    """

    spread: float | None = None

    def axis(self, values: Sequence[float]) -> Axis:
        low, high = min(values), max(values)
        size = max(abs(low), abs(high))
        least = 2 * self.spread if self.spread else 0.1 * size
        missing = max(0.0, (least or 1.0) - (high - low))
        return linear(low - missing / 2, high + missing / 2)


def linear(low: float, high: float, ticks: int = 5) -> Axis:
    """Returns an axis that contains two values, whose ends are ticks; about ``ticks`` of them."""
    # what is larger or nearer has no ticks that a float can count
    low, high = max(low, -MOST), min(high, MOST)
    raw = max((high - low) / max(1, ticks - 1), 1e-12 * max(abs(low), abs(high)), 1 / MOST)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in STEPS if power * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, [k * step for k in range(first, last + 1)])


def label(value: float, step: float) -> str:
    """Returns a value with the decimals that its ticks need, and with a minus that is one."""
    size = max(abs(value), step)
    if size >= 1e5 or size < 1e-4:
        return f"{value:.3g}".replace("-", "−")
    decimals = next((d for d in range(8) if abs(step * 10**d - round(step * 10**d)) < 1e-6), 8)
    return f"{value + 0.0:.{decimals}f}".replace("-", "−") if abs(value) > step * 1e-6 else "0"
