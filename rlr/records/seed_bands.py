"""Curves of groups of runs: the mean over seeds, and the range of the seeds."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rlr.evaluation.plots import Line, Plot
from rlr.evaluation.scales import Amount, Level, Scale
from rlr.records.curves import evaluated, scale_of
from rlr.records.groups import Group
from rlr.records.record import Record
from rlr.records.series import Series

Get = Callable[[Record], Series]
"""Returns a series of a run, which may be empty."""


@dataclass(frozen=True)
class Curve:
    """What is drawn of every run.

    Args:
        title: What it is.
        get: Returns it for a run.
        scale: Its scale.
        smooth: Whether it is smoothed before it is drawn.
    """

    title: str
    get: Get
    scale: Scale
    smooth: bool = False

    def drawn(self, record: Record) -> Series:
        """Returns what is drawn of a run."""
        series = self.get(record).finite()
        return series.smoothed() if self.smooth and len(series) else series


def band(series: Sequence[Series]) -> tuple[Series, Series, Series]:
    """Returns mean, least and greatest value of several series at the places that all of them cover.

    Between its own places a series is interpolated on straight lines; it is never continued beyond its ends.
    """
    first, last = max(s.at[0] for s in series), min(s.at[-1] for s in series)
    at = sorted({x for s in series for x in s.at if first <= x <= last})
    values = np.array([[s.value_at(x) for x in at] for s in series])
    return tuple(Series(tuple(at), tuple(part.tolist())) for part in (values.mean(0), values.min(0), values.max(0)))  # type: ignore[return-value]


def group_lines(
    curve: Curve, groups: Sequence[Group], across: Callable[[Record], Series] | None = None
) -> Iterator[Line]:
    """Yields the line of each group that has the curve.

    Args:
        curve: The curve.
        groups: The groups.
        across: Returns what it is drawn against in the place of the updates, as a series against the updates.
    """
    for color, group in enumerate(groups):
        found = [series for record in group.records if len(series := _placed(curve.drawn(record), record, across))]
        if found and max(s.at[0] for s in found) <= min(s.at[-1] for s in found):
            mean, low, high = (part.thinned() for part in band(found))
            ends = (low.values, high.values) if len(found) > 1 else ((), ())
            name = f"{group.name} ({len(found)} seeds)" if len(found) > 1 else group.name
            yield Line(name, mean.at, mean.values, *ends, color=color, points=len(mean) <= 40)


def _placed(series: Series, record: Record, across: Callable[[Record], Series] | None) -> Series:
    if across is None or not len(series):
        return series
    axis = across(record)
    return series.against(axis.value_at) if len(axis) else Series((), ())


def curves(groups: Sequence[Group]) -> list[Curve]:
    """Returns the curves that any run has: the reward in training, measurements on held-out prompts, the divergence."""
    records = [record for group in groups for record in group.records]
    spread = next((record.spread for record in records if record.spread), None)
    training = Curve(
        "Reward on training prompts, smoothed", lambda r: r.series("reward/mean"), Level(spread), smooth=True
    )
    validation = Curve("Reward on validation prompts", lambda r: r.series("val/reward"), Level(spread))
    divergence = Curve("Divergence from the base model (KL)", lambda r: r.series("kl/path"), Amount(), smooth=True)
    held_out = [_held_out(key, records) for key in dict.fromkeys(key for record in records for key in record.measured)]
    wanted = [*held_out, validation, training, divergence]
    return [curve for curve in wanted if any(len(curve.get(record).finite()) for record in records)]


def _held_out(key: tuple[str, str], records: Sequence[Record]) -> Curve:
    name, label = key

    def get(record: Record) -> Series:
        line = evaluated(label, record.measured.get(key, []), 0)
        return Series.of(zip(line.at, line.values, strict=True))

    first = next(record for record in records if key in record.measured)
    return Curve(f"{label} on {name}", get, scale_of(first, name, label))


def reward_calls(record: Record) -> Series:
    """Returns the samples that the reward has scored, against the updates."""
    return _from_zero(record.series("reward_calls").finite())


def hours(record: Record) -> Series:
    """Returns the hours that updates have taken, against the updates; evaluations do not count."""
    parts = [record.series(key).finite() for key in record.keys if key.startswith("seconds/")]
    totals: dict[float, float] = {}
    for series in parts:
        for at, seconds in zip(series.at, series.values, strict=True):
            totals[at] = totals.get(at, 0.0) + seconds / 3600
    return _from_zero(Series.of(totals.items()).accumulated())


def _from_zero(series: Series) -> Series:
    return Series.of([(0.0, 0.0), *zip(series.at, series.values, strict=True)]) if len(series) else series


ACROSS = {"samples scored by the reward": reward_calls, "hours of updates": hours}
"""What the first curve is drawn against besides the updates."""


def plots(groups: Sequence[Group]) -> list[Plot]:
    """Returns the plots: each curve against the updates, and the first one against its costs."""
    found = curves(groups)
    drawn = [Plot(curve.title, list(group_lines(curve, groups)), curve.scale) for curve in found]
    for x, across in ACROSS.items():
        for curve in found[:1]:
            drawn.insert(1, Plot(curve.title, list(group_lines(curve, groups, across)), curve.scale, x=x))
    return [plot for plot in drawn if any(math.isfinite(v) for line in plot.lines for v in line.values)]
