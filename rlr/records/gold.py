"""What is measured beside the trained reward, against it: whether the one still rises with the other."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

from rlr.evaluation.plots import Line, Trace, value
from rlr.evaluation.scales import Level
from rlr.records.curves import prompts_called, scale_of
from rlr.records.record import TRAINING, Record

LEAST = 2
"""The fewest evaluations of which a path is drawn."""


def gold_plots(record: Record) -> list[Trace]:
    """Returns, for each measurement on held-out prompts besides the trained reward, its path against the trained reward.

    The trained reward is that on the same prompts or, where the evaluation does not have it, that of the training batches,
    smoothed.
    """
    return [
        trace
        for (name, label), rows in record.measured.items()
        if label != record.reward and name != TRAINING and (trace := _trace(record, name, label, rows))
    ]


def _trace(record: Record, name: str, label: str, rows: Sequence[Mapping[str, str]]) -> Trace | None:
    gold, proxy = _by_update(rows), _proxy(record, name)
    updates = sorted(update for update in gold if update in proxy)
    if len(updates) < LEAST:
        return None
    line = Line(label, [proxy[u] for u in updates], [gold[u] for u in updates], color=1, points=True)
    scale = scale_of(record, name, record.reward) if (name, record.reward) in record.measured else Level(record.spread)
    return Trace(
        f"{label} against the trained reward, {prompts_called(name)}",
        [line],
        scale_of(record, name, label),
        record.reward,
        _note(label, updates, gold),
        across_scale=scale,
        moments=updates,
    )


def _note(label: str, updates: Sequence[float], gold: Mapping[float, float]) -> str:
    low, high = (choose(updates, key=lambda u: gold[u]) for choose in (min, max))
    return (
        f"One point for each evaluation, joined in their order from update {updates[0]:g} to {updates[-1]:g}. {label} is highest "
        f"after update {high:g} ({value(gold[high])}), and lowest after {low:g} ({value(gold[low])}). Where it gets worse while "
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
