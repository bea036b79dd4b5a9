"""Intervals cover as often as they say, and count prompts, not samples."""

import numpy as np

from rlr.evaluation.statistics import interval


def test_interval_covers_as_often_as_it_says() -> None:
    # 300 data sets of 60 prompts × 2 dependent samples: 95 % of the intervals hold the mean, give or take 1.3 %
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(300):
        values = rng.normal(size=(60, 1)) + 0.3 * rng.normal(size=(60, 2))
        low, high = interval(values, rng)
        hits.append(low <= 0 <= high)
    assert 0.90 <= np.mean(hits) <= 0.985


def test_interval_does_not_count_prompts_without_the_claim() -> None:
    values = np.array([[1.0, 1.0], [np.nan, np.nan], [1.0, 1.0]])
    assert interval(values, np.random.default_rng(0)) == (1.0, 1.0)
