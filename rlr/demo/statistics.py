"""Paired differences between two evaluations, with bootstrap intervals."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from rlr.demo.evaluate import Evaluation

DRAWS = 10_000
"""Resamples of the bootstrap."""


@dataclass(frozen=True)
class Comparison:
    """One measurement before and after: both means, their difference and its 95 % interval."""

    base: float
    aligned: float
    difference: float
    low: float
    high: float


def compare(base: Evaluation, aligned: Evaluation, seed: int = 0) -> dict[str, Comparison]:
    """Compares every measurement; one that no prompt of the evaluation has is left out."""
    names = [name for name, values in base.scores.items() if not values.isnan().all()]
    return {name: _compare(base.scores[name], aligned.scores[name], seed) for name in names}


def _compare(base: Tensor, aligned: Tensor, seed: int) -> Comparison:
    difference = (aligned - base).double().numpy()
    low, high = interval(difference, np.random.default_rng(seed))
    return Comparison(
        base.nanmean().item(), aligned.nanmean().item(), float(np.nanmean(difference)), float(low), float(high)
    )


def interval(values: np.ndarray, rng: np.random.Generator, level: float = 0.95) -> tuple[float, float]:
    r"""Returns the percentile bootstrap interval of a mean.

    Prompts are resampled, not samples: two samples of one prompt are not independent.

    Args:
        values: The values, with shape :math:`(N, S)`; rows of NaN are prompts that do not count.
        rng: Draws the resamples.
        level: The coverage aimed at.
    """
    rows = np.nanmean(values[~np.isnan(values).all(1)], 1)
    means = rows[rng.integers(len(rows), size=(DRAWS, len(rows)))].mean(1)
    return tuple(np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist())
