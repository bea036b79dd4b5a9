"""Intervals cover as often as they say, and count prompts, not samples."""

import math
import warnings

import numpy as np
import pytest
import torch

from rlr.evaluation.statistics import compare, compare_pair, estimate, interval

NAN, INF = math.nan, math.inf


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


def test_all_numbers_of_a_comparison_are_of_the_same_samples() -> None:
    base = torch.tensor([[1.0, 2.0], [NAN, 30.0], [5.0, NAN], [INF, 7.0]])
    aligned = torch.tensor([[2.0, 4.0], [10.0, 33.0], [NAN, 100.0], [8.0, 8.0]])
    # those of (1, 2), (2, 4), (30, 33), (7, 8)
    found = compare_pair(base, aligned)
    assert (found.base, found.aligned, found.difference) == (10, 11.75, 1.75)
    assert found.low <= found.difference <= found.high
    assert found == compare({"a": base}, {"a": aligned})["a"]


def test_what_no_sample_has_before_and_after_is_no_comparison() -> None:
    gone, there = torch.full((3, 1), NAN), torch.ones(3, 1)
    assert compare({"a": gone, "b": there}, {"a": there, "b": there}).keys() == {"b"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = (compare_pair(gone, there), compare_pair(there, gone), estimate(gone))
    assert all(math.isnan(number) for value in nothing for number in vars(value).values())


def test_an_estimate_is_of_what_is_finite() -> None:
    assert estimate(torch.tensor([[1.0, 3.0], [NAN, 5.0], [INF, NAN]])).mean == pytest.approx(3)
