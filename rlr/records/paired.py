"""Differences between runs on the same prompts and noises."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlr.evaluation.statistics import Comparison, interval
from rlr.records.groups import Group
from rlr.records.record import Record

Key = tuple[str, str, str]
"""Stage, set of prompts, and label of a measurement."""


@dataclass(frozen=True)
class Difference:
    """A group of runs beside the reference.

    Args:
        group: The group.
        key: Stage, set of prompts and measurement.
        value: The means of the reference and of the group, and the interval of their difference over prompts.
        prompts: The number of prompts that count.
        seed_error: The standard error of the difference over training seeds; NaN where a group has one run.
        same_base: Whether the base model has the same scores in both; None where it was not measured.
    """

    group: str
    key: Key
    value: Comparison
    prompts: int
    seed_error: float
    same_base: bool | None


def measured_keys(group: Group) -> list[Key]:
    """Returns the measurements that every run of a group has."""
    found = [
        {
            (stage, name, label): None
            for stage, r in record.results.items()
            for name, s in r["sets"].items()
            for label in s.get("scores", {})
        }
        for record in group.records
    ]
    return [key for key in found[0] if all(key in other for other in found)]


def scores(record: Record, key: Key, part: str = "scores") -> np.ndarray:
    r"""Returns the scores of a run, with shape :math:`(N, S)`; NaN where there is no finite one, and empty without any."""
    stage, name, label = key
    rows = record.results.get(stage, {}).get("sets", {}).get(name, {}).get(part, {}).get(label, [])
    return np.array([[math.nan if x is None else x for x in row] for row in rows], dtype=np.float64)


def differences(groups: Sequence[Group]) -> Iterator[Difference]:
    """Yields the differences of every group from the first one, for each measurement of the same prompts on the same noises."""
    reference, *others = groups
    for key in measured_keys(reference):
        for group in others:
            if key in measured_keys(group) and _alike([*reference.records, *group.records], key):
                yield difference(reference, group, key)


def difference(reference: Group, group: Group, key: Key) -> Difference:
    r"""Returns the difference of two groups.

    The scores of a sample are means over the runs of a group. With :math:`d_{ik}` the difference for sample :math:`k` of prompt
    :math:`i`, the interval is the bootstrap interval over prompts of the mean of :math:`d_{ik}`.
    """
    before, after = (np.stack([scores(record, key) for record in g.records]) for g in (reference, group))
    change = np.round(after.mean(0) - before.mean(0), 12)
    counts = np.isfinite(change)
    rows = np.isfinite(change).any(1)
    low, high = interval(change, np.random.default_rng(0)) if rows.sum() > 1 else (math.nan, math.nan)
    means = [
        float(np.nanmean(np.where(counts, x.mean(0), math.nan))) if counts.any() else math.nan for x in (before, after)
    ]
    found = Comparison(means[0], means[1], round(means[1] - means[0], 12), low, high)
    error = math.hypot(*(standard_error([float(np.nanmean(run)) for run in x]) for x in (before, after)))
    return Difference(
        group.name, key, found, int(rows.sum()), error, _same_base(reference.records[0], group.records[0], key)
    )


def standard_error(means: Sequence[float]) -> float:
    """Returns the standard error of a mean over runs; NaN of one run, and 0 of runs that differ by rounding alone."""
    if len(means) < 2:
        return math.nan
    same = np.ptp(means) <= 1e-12 * np.max(np.abs(means))
    return 0.0 if same else float(np.std(means, ddof=1) / math.sqrt(len(means)))


def _alike(records: Sequence[Record], key: Key) -> bool:
    """Whether all runs were evaluated on the same prompts with the same seed and number of samples."""
    first, *others = [_conditions(record, key) for record in records]
    return all(other == first for other in others)


def _conditions(record: Record, key: Key) -> tuple[Any, ...]:
    stage, name, _ = key
    results: Mapping[str, Any] = record.results[stage]
    return results.get("seed"), results["sets"][name].get("prompts"), scores(record, key).shape


def _same_base(one: Record, other: Record, key: Key) -> bool | None:
    a, b = (scores(record, key, "base_scores") for record in (one, other))
    if not a.size or a.shape != b.shape:
        return None
    return bool(np.allclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True))
