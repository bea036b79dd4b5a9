"""What is measured beside the trained reward, against it: whether the one still rises with the other."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rlr.evaluation.plots import Line, Trace, value
from rlr.evaluation.scales import Level, Scale
from rlr.records.curves import prompts_called, scale_of
from rlr.records.record import TRAINING, Record

GOLD = "What is not trained, against the trained reward"
"""The heading of these plots on a page."""
LEAST = 2
"""The fewest evaluations of which a path is drawn."""


class GoldPath(NamedTuple):
    """A measurement at the evaluations of a run, and the trained reward at the same ones."""

    updates: list[float]
    gold: list[float]
    proxy: list[float]


def gold_plots(record: Record) -> list[Trace]:
    """Returns, for each measurement on held-out prompts besides the trained reward, its path against the trained reward.

    The trained reward is that on the same prompts or, where the evaluation does not have it, that of the training batches,
    smoothed.
    """
    return [
        _trace(key, {key[1]: (record, path)}, 1, _note(key[1], path))
        for key in _measured(record)
        if (path := _path(record, *key))
    ]


def gold_comparison(runs: Mapping[str, Record]) -> list[Trace]:
    """Returns, for each such measurement, the paths of several runs in one plot, if all are trained with one reward.

    Args:
        runs: The runs by the names of their lines.
    """
    if len({record.reward for record in runs.values()}) > 1:
        return []
    keys = dict.fromkeys(key for record in runs.values() for key in _measured(record))
    traces = []
    for key in keys:
        paths = {name: (record, path) for name, record in runs.items() if (path := _path(record, *key))}
        if len(paths) > 1:
            traces.append(_trace(key, paths, 0, "One point for each evaluation, joined in their order."))
    return traces


def _measured(record: Record) -> list[tuple[str, str]]:
    """Returns the measurements on held-out prompts besides the trained reward, by the name of the prompts and their own."""
    return [key for key in record.measured if key[0] != TRAINING and key[1] != record.reward]


def _trace(key: tuple[str, str], paths: Mapping[str, tuple[Record, GoldPath]], color: int, note: str) -> Trace:
    """Returns the paths of one measurement by the names of their lines.

    Args:
        key: The name of the prompts, and that of the measurement.
        paths: The runs and their paths.
        color: The color of the first line.
        note: The text below.
    """
    name, label = key
    record, _ = next(iter(paths.values()))
    lines = [
        Line(line, path.proxy, path.gold, color=color + i, points=True, moments=path.updates)
        for i, (line, (_, path)) in enumerate(paths.items())
    ]
    return Trace(
        f"{label} against the trained reward, {prompts_called(name)}",
        lines,
        scale_of(record, name, label),
        record.reward,
        note,
        across_scale=_proxy_scale(record, name),
    )


def _path(record: Record, name: str, label: str) -> GoldPath | None:
    """Returns the path of a measurement, or None if there are too few evaluations."""
    gold, proxy = _by_update(record.measured.get((name, label), [])), _proxy(record, name)
    updates = sorted(update for update in gold if update in proxy)
    if len(updates) < LEAST:
        return None
    return GoldPath(updates, [gold[u] for u in updates], [proxy[u] for u in updates])


def _proxy_scale(record: Record, name: str) -> Scale:
    key = (name, record.reward)
    return scale_of(record, *key) if key in record.measured else Level(record.spread)


def _note(label: str, path: GoldPath) -> str:
    """Returns in words where a measurement is highest and lowest."""
    found = list(zip(path.gold, path.updates, strict=True))
    (least, low), (most, high) = (choose(found, key=lambda pair: pair[0]) for choose in (min, max))
    return (
        f"One point for each evaluation, joined in their order from update {path.updates[0]:g} to {path.updates[-1]:g}. {label} is "
        f"highest after update {high:g} ({value(most)}), and lowest after {low:g} ({value(least)}). Where it gets worse while "
        "the trained reward still rises, the trained reward is exploited."
    )


def _by_update(rows: Sequence[Mapping[str, str]]) -> dict[float, float]:
    """Returns the finite values of a measurement by the number of updates."""
    pairs = ((_number(row.get("update")), _number(row.get("aligned"))) for row in rows)
    return {update: found for update, found in pairs if math.isfinite(update) and math.isfinite(found)}


def _proxy(record: Record, name: str) -> dict[float, float]:
    """Returns the trained reward at each evaluation of a set of prompts."""
    if (name, record.reward) in record.measured:
        return _by_update(record.measured[name, record.reward])
    series = record.series("reward/mean").finite()
    if not len(series):
        return {}
    smooth = series.smoothed()
    updates = {_number(row.get("update")) for row in record.history}
    # the first batch at or after an evaluation is of the weights that were evaluated
    places = {u: min(bisect_left(smooth.at, u), len(smooth) - 1) for u in updates if math.isfinite(u)}
    return {u: smooth.values[place] for u, place in places.items()}


def _number(text: str | None) -> float:
    try:
        return float(text or math.nan)
    except ValueError:
        return math.nan
