"""Curves as inline SVG, which is sharp at any size and takes the colors of the page."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import ClassVar, NamedTuple

from rlr.evaluation.scales import Axis, Level, Scale, linear

WIDTH, HEIGHT = 440.0, 270.0
"""The size of a plot, in units of 1/13 of its text's height; a phone shows it about 340 pixels wide."""
LEFT, RIGHT, TOP, BOTTOM = 58.0, 20.0, 12.0, 40.0
DIGIT, GAP = 8.4, 12.0
"""The width of a digit in the widest of the usual fonts, and what a label and the field have between them and around."""
COLORS = 6
"""The number of colors; a further line begins again, dashed."""


@dataclass(frozen=True)
class Line:
    """A line of a plot.

    Args:
        name: What it shows.
        at: Where, such as the number of updates.
        values: The values; those that are not finite leave a gap.
        low: The lower ends of a band around it, or nothing.
        high: Its upper ends.
        color: The number of its color.
        points: Whether each value is marked, and states itself.
        moments: Of a path of one quantity against another, the moment of each value, such as a number of updates.
        faint: Whether it stands behind the others.
    """

    name: str
    at: Sequence[float]
    values: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    color: int = 0
    points: bool = False
    moments: Sequence[float] = ()
    faint: bool = False

    def reach(self) -> Iterator[float]:
        """Yields all that is drawn."""
        yield from (value for value in (*self.values, *self.low, *self.high) if math.isfinite(value))

    @property
    def style(self) -> str:
        """The classes of its color and its dashes."""
        dashed = " dashed" if self.color >= COLORS else ""
        return f"c{self.color % COLORS}{' faint-line' if self.faint else ''}{dashed}"


class Tick(NamedTuple):
    """A tick: where it is, and its text."""

    at: float
    text: str


class Point(NamedTuple):
    """A marked value: where it is, and its text."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Plot:
    """Lines against one quantity.

    Args:
        title: What the values are.
        lines: The lines, those behind first.
        scale: Chooses the axis of the values.
        x: What the values are drawn against.
        note: What a reader has to know.
    """

    title: str
    lines: Sequence[Line]
    scale: Scale
    x: str = "updates"
    note: str = ""

    size: ClassVar[tuple[float, float]] = (WIDTH, HEIGHT)

    @cached_property
    def frame(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the field of the lines; the labels of the vertical axis stand left of it."""
        return self._left, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM

    @cached_property
    def _left(self) -> float:
        return max(LEFT, DIGIT * max(map(len, self.up.labels())) + GAP)

    @cached_property
    def across(self) -> Axis:
        """The horizontal axis."""
        last = max((at for line in self.lines for at in line.at), default=0.0) or 1.0
        ticks = [tick for tick in linear(0.0, last).ticks if tick <= last * (1 + 1e-9)]
        return Axis(0.0, last, ticks)

    @cached_property
    def up(self) -> Axis:
        """The vertical axis."""
        values = [value for line in self.lines for value in line.reach()]
        return self.scale.axis(values or [0.0])

    @property
    def text(self) -> str:
        """What readers are given who do not see it: each line's first and last value."""
        ends = [
            f"{line.name} from {value(known[0])} to {value(known[-1])}"
            for line in self.lines
            if (known := [v for v in line.values if math.isfinite(v)])
        ]
        return f"{self.title} against {self.x}: {'; '.join(ends)}"

    @property
    def columns(self) -> list[Tick]:
        """The ticks of the horizontal axis."""
        return [Tick(self._x(t), text) for t, text in zip(self.across.ticks, self.across.labels(), strict=True)]

    @property
    def rows(self) -> list[Tick]:
        """The ticks of the vertical axis."""
        return [Tick(self._y(t), text) for t, text in zip(self.up.ticks, self.up.labels(), strict=True)]

    def paths(self, line: Line) -> list[str]:
        """Returns the paths of a line, one for each piece without a gap."""
        return [f"M{' L'.join(self._at(x, y) for x, y in piece)}" for piece in self._pieces(line.at, line.values)]

    def bands(self, line: Line) -> list[str]:
        """Returns the outlines of a line's band, one for each piece without a gap."""
        if not line.low:
            return []
        return [
            f"M{' L'.join([*(self._at(x, a) for x, a in lower), *(self._at(x, b) for x, b in reversed(upper))])} Z"
            for lower, upper in self._sides(line)
        ]

    def points(self, line: Line) -> list[Point]:
        """Returns the marked values of a line."""
        ends = zip(line.low, line.high, strict=True) if line.low else [(math.nan, math.nan)] * len(line.at)
        return [
            Point(round(self._x(x), 1), round(self._y(y), 1), self._words(line, x, y, low, high))
            for x, y, (low, high) in zip(line.at, line.values, ends, strict=True)
            if line.points and math.isfinite(y)
        ]

    def _words(self, line: Line, x: float, y: float, low: float, high: float) -> str:
        band = f" ({value(low)} … {value(high)})" if math.isfinite(low) else ""
        return f"{line.name}, {self.x} {x:g}: {value(y)}{band}"

    def _sides(self, line: Line) -> Iterator[tuple[list[tuple[float, float]], list[tuple[float, float]]]]:
        joined = list(zip(line.at, line.low, line.high, strict=True))
        for whole, piece in groupby(joined, lambda item: math.isfinite(item[1]) and math.isfinite(item[2])):
            if whole:
                found = list(piece)
                yield [(x, a) for x, a, _ in found], [(x, b) for x, _, b in found]

    @staticmethod
    def _pieces(at: Sequence[float], values: Sequence[float]) -> Iterator[list[tuple[float, float]]]:
        for whole, piece in groupby(zip(at, values, strict=True), lambda item: math.isfinite(item[1])):
            if whole:
                yield list(piece)

    def _at(self, x: float, y: float) -> str:
        return f"{self._x(x):.1f} {self._y(y):.1f}"

    def _x(self, value: float) -> float:
        return self._left + self.across.place(value) * (WIDTH - self._left - RIGHT)

    def _y(self, value: float) -> float:
        return HEIGHT - BOTTOM - self.up.place(value) * (HEIGHT - TOP - BOTTOM)


@dataclass(frozen=True)
class Trace(Plot):
    """Paths of one quantity against another, each through the same moments in their order.

    Args:
        across_scale: Chooses the horizontal axis.
    """

    across_scale: Scale = Level()  # noqa: RUF009 - frozen

    @cached_property
    def across(self) -> Axis:
        """The horizontal axis, which need not begin at zero."""
        return self.across_scale.axis([at for line in self.lines for at in line.at] or [0.0])

    def points(self, line: Line) -> list[Point]:
        """Returns the marked values of a line, each with its moment."""
        found = zip(line.at, line.values, line.moments, strict=True)
        return [
            Point(
                round(self._x(x), 1),
                round(self._y(y), 1),
                f"{line.name} {value(y)}, {self.x} {value(x)}: after {moment:g}",
            )
            for x, y, moment in found
            if math.isfinite(y)
        ]


@dataclass(frozen=True)
class Plots:
    """Plots side by side.

    Args:
        title: What they show.
        plots: The plots.
        note: What a reader has to know.
        summary: With one, the plots are folded under it.
    """

    title: str
    plots: Sequence[Plot]
    note: str = ""
    summary: str = ""
    kind: ClassVar[str] = "plots"


def value(number: float) -> str:
    """Returns a number with four digits."""
    return f"{number:.4g}".replace("-", "−")
