"""What is drawn of one run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlr.evaluation.plots import Line, Plot
from rlr.evaluation.scales import Amount, Bounded, Level, Scale
from rlr.records.record import TRAINING, Record
from rlr.records.series import Series

COST = {
    "seconds": "Seconds of an update, by part",
    "memory_mib": "Peak memory of each part, MiB",
}
"""The groups of columns that are costs."""
SIGNED = "cosine"
OTHERS = 24
"""The most further columns that are drawn."""


def reward_plot(record: Record) -> Plot | None:
    """Returns the reward on training prompts and on held-out ones; None where nothing was trained."""
    lines = [*_training(record), *_held_out(record)]
    if not lines:
        return None
    note = "Training: the mean of each update's batch, and its centered moving mean over a tenth of the run, at least five batches."
    if any(line.low for line in lines):
        note += f" {BAND}"
    if record.spread:
        note += f" The axis is at least twice the standard deviation between samples, {record.spread:.3g}, high."
    return Plot(f"Reward: {record.reward}", lines, Level(record.spread), note=note)


BAND = "Band: the 95 % interval of the change since update 0, over prompts on the same noise."


def _training(record: Record) -> Iterator[Line]:
    series = record.series("reward/mean").finite()
    if len(series):
        raw, smooth = series.thinned(), series.smoothed().thinned()
        yield Line("training prompts, each batch", raw.at, raw.values, faint=True)
        yield Line("training prompts, smoothed", smooth.at, smooth.values)


def _held_out(record: Record) -> Iterator[Line]:
    """Yields the trained reward on the prompts of evaluations, or else on those of the validation."""
    found = [(name, rows) for name, rows in record.measured.items() if name[1] == record.reward]
    for color, ((name, _), rows) in enumerate(found, 1):
        yield evaluated(prompts_called(name), rows, color)
    series = record.series("val/reward").finite()
    if not found and len(series):
        yield Line("validation prompts", series.at, series.values, color=1, points=True)


def prompts_called(name: str) -> str:
    """Returns what a plot calls the prompts of a set."""
    return name if name == TRAINING else f"held-out prompts ({name})"


def evaluated(name: str, rows: Sequence[Mapping[str, str]], color: int) -> Line:
    """Returns a measurement after each evaluation, with the interval of its change since the base model."""
    at, values, low, high = ([_cell(row, key) for row in rows] for key in ("update", "aligned", "low", "high"))
    base = [_cell(row, "base") for row in rows]
    # without a base model, the interval is that of the value itself
    lower = [math.nan if math.isnan(b) else b + a for a, b in zip(low, base, strict=True)]
    upper = [math.nan if math.isnan(b) else b + a for a, b in zip(high, base, strict=True)]
    # the base model is its own reference
    ends = [(v, v) if x == 0 else (a, b) for x, v, a, b in zip(at, values, lower, upper, strict=True)]
    return Line(name, at, values, [a for a, _ in ends], [b for _, b in ends], color, points=True)


def _cell(row: Mapping[str, str], key: str) -> float:
    try:
        return float(row.get(key) or math.nan)
    except ValueError:
        return math.nan


def other_plots(record: Record) -> list[Plot]:
    """Returns the measurements on held-out prompts besides the trained reward, such as diversity."""
    return [
        _measurement(f"{label} on {name}", evaluated(prompts_called(name), rows, 1), scale_of(record, name, label))
        for (name, label), rows in record.measured.items()
        if label != record.reward
    ]


def _measurement(title: str, line: Line, scale: Scale) -> Plot:
    known = any(math.isfinite(low) and low != value for low, value in zip(line.low, line.values, strict=True))
    return Plot(title, [line], scale, note=BAND if known else "")


def scale_of(record: Record, name: str, label: str) -> Scale:
    """Returns the scale of a measurement: a share where every score is 0 or 1, an amount for a distance, else a level."""
    scores = scores_of(record, name, label)
    if label == "diversity":
        return Amount()
    if scores and all(score in (0.0, 1.0) for score in scores):
        return Bounded()
    return Level(deviation(scores))


def scores_of(record: Record, name: str, label: str) -> list[float]:
    """Returns all finite scores of a measurement in the latest evaluation of the ``fit``, those of the base model included."""
    found = record.results.get("fit", {}).get("sets", {}).get(name, {})
    tables: list[Any] = [found.get(part, {}).get(label, []) for part in ("scores", "base_scores")]
    return [float(x) for table in tables for row in table for x in row if isinstance(x, int | float)]


def deviation(values: Sequence[float]) -> float | None:
    """Returns the standard deviation; None of fewer than two values, or of equal ones."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1)) or None


def term_plots(record: Record) -> list[Plot]:
    """Returns the divergence from the base model, and norms and cosines of the terms of the gradient."""
    found = [
        _plot(record, "Divergence from the base model (KL)", _under(record, "kl"), Amount()),
        _plot(record, "Norms of the terms of the gradient", _under(record, "gradient"), Amount()),
        _plot(record, "Cosines between the terms", _under(record, SIGNED), Bounded(-1, 1)),
    ]
    return [plot for plot in found if plot]


def cost_plots(record: Record) -> list[Plot]:
    """Returns seconds and memory of the parts of an update."""
    return [plot for group, title in COST.items() if (plot := _plot(record, title, _under(record, group), Amount()))]


def further_plots(record: Record) -> list[Plot]:
    """Returns every other column, each by itself."""
    shown = ("reward/", "kl/", "gradient/", f"{SIGNED}/", "evaluation/", *(f"{group}/" for group in COST))
    keys = [
        key for key in record.keys if not key.startswith(shown) and key not in ("val/reward", "samples", "reward_calls")
    ]
    plots = (_plot(record, key, [key], Level(_noise(record.series(key)))) for key in keys[:OTHERS])
    return [plot for plot in plots if plot]


def _noise(series: Series) -> float | None:
    """Returns the standard deviation of a series about its moving mean."""
    known = series.finite()
    if len(known) < 3:
        return None
    smooth = known.smoothed(5)
    return deviation([a - b for a, b in zip(known.values, smooth.values, strict=True)])


def _under(record: Record, group: str) -> list[str]:
    return [key for key in record.keys if key.startswith(f"{group}/")]


def _plot(record: Record, title: str, keys: Sequence[str], scale: Scale) -> Plot | None:
    """Returns smoothed columns in one plot, or None where there are no values."""
    lines = []
    for color, key in enumerate(keys):
        series = record.series(key).finite()
        if len(series):
            smooth = series.smoothed().thinned()
            lines.append(Line(key.partition("/")[2] or key, smooth.at, smooth.values, color=color))
    return Plot(title, lines, scale) if lines else None
