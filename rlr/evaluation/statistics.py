"""Means and paired differences, with bootstrap intervals over prompts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    # pages are made of files, without torch
    from torch import Tensor

DRAWS = 10_000
"""Resamples of the bootstrap."""
AT_ONCE = 500
"""Resamples that are held in memory together."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """One measurement before and after: both means, their difference and its 95 % interval."""

    base: float
    aligned: float
    difference: float
    low: float
    high: float


def compare(base: "Mapping[str, Tensor]", aligned: "Mapping[str, Tensor]", seed: int = 0) -> dict[str, Comparison]:
    r"""Compares every measurement; one that no sample has before and after is left out.

    Args:
        base: Measurements by name, each with shape :math:`(N, S)`: prompts, samples.
        aligned: The same of the same prompts on the same noises.
        seed: Decides the resamples.
    """
    pairs = {name: (values, aligned[name]) for name, values in base.items()}
    return {name: compare_pair(*pair, seed) for name, pair in pairs.items() if common(*pair).any()}


def compare_pair(base: "Tensor", aligned: "Tensor", seed: int = 0) -> Comparison:
    r"""Compares a measurement on the samples that have a finite one before and after; without any, all is NaN."""
    both = common(base, aligned)
    before, after = (values.double().where(both, math.nan) for values in (base, aligned))
    difference = estimate(after - before, seed)
    return Comparison(_mean(before), _mean(after), difference.mean, difference.low, difference.high)


def common(base: "Tensor", aligned: "Tensor") -> "Tensor":
    r"""Returns which of the :math:`(N, S)` samples have a finite measurement before and after."""
    return base.isfinite() & aligned.isfinite()


def estimate(values: "Tensor", seed: int = 0) -> Estimate:
    r"""Returns the mean of the finite ones of values with shape :math:`(N, S)`, and the interval over prompts.

    Of fewer than two prompts there is no interval: its bounds are NaN.
    """
    finite = values.double().where(values.isfinite(), math.nan)
    if finite.isfinite().any(1).sum() < 2:
        return Estimate(_mean(finite), np.nan, np.nan)
    low, high = interval(finite.cpu().numpy(), np.random.default_rng(seed))
    return Estimate(_mean(finite), float(low), float(high))


def _mean(values: "Tensor") -> float:
    return values.nanmean().item()


def interval(values: np.ndarray, rng: np.random.Generator, level: float = 0.95) -> tuple[float, float]:
    r"""Returns the percentile bootstrap interval of a mean.

    Prompts are resampled, not samples: two samples of one prompt are not independent.

    Args:
        values: The values, with shape :math:`(N, S)`; rows of NaN are prompts that do not count.
        rng: Draws the resamples.
        level: The coverage aimed at.
    """
    rows = np.nanmean(values[~np.isnan(values).all(1)], 1)
    counts = [min(AT_ONCE, DRAWS - at) for at in range(0, DRAWS, AT_ONCE)]
    means = np.concatenate([rows[rng.integers(len(rows), size=(count, len(rows)))].mean(1) for count in counts])
    return tuple(np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist())
