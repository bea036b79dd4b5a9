"""Curves with known answers."""

import math

import pytest

from experiments.board.held_out_curves import Curve, Mean

CURVE = Curve([0.0, 400.0, 800.0, 1200.0], [28.0, 28.2, 28.6, 28.4])


@pytest.mark.parametrize(("score", "cost"), [(27.9, 0.0), (28.0, 0.0), (28.1, 200.0), (28.2, 400.0), (28.5, 700.0)])
def test_the_cost_of_a_score_lies_on_the_polygon(score: float, cost: float) -> None:
    assert CURVE.cost_of(score) == pytest.approx(cost)


def test_a_score_that_is_not_reached_has_no_cost() -> None:
    assert CURVE.cost_of(28.61) is None
    assert Curve([], []).cost_of(0.0) is None


def test_the_first_of_several_costs_counts() -> None:
    assert Curve([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 0.0, 1.0]).cost_of(0.5) == pytest.approx(0.5)


def test_the_score_at_a_cost_is_interpolated_and_ends_with_the_run() -> None:
    assert [CURVE.score_at(cost) for cost in (0.0, 200.0, 400.0, 1000.0, 1200.0)] == pytest.approx(
        [28.0, 28.1, 28.2, 28.5, 28.4]
    )
    assert CURVE.score_at(1201.0) is None


def test_cost_and_score_invert_each_other_on_a_rising_curve() -> None:
    rising = Curve([0.0, 3.0, 10.0], [1.0, 2.0, 7.0])
    for cost in (0.5, 2.9, 3.0, 9.0):
        assert rising.cost_of(rising.score_at(cost)) == pytest.approx(cost)


def test_rows_are_sorted_by_cost_and_incomplete_ones_left_out() -> None:
    rows = [{"calls": 16.0, "R": 2.0}, {"calls": 8.0}, {"calls": 0.0, "R": 1.0}]
    assert Curve.of(rows, "calls", "R") == Curve([0.0, 16.0], [1.0, 2.0])


def test_the_interval_is_students() -> None:
    # t_{2, 0.975} = 4.3027, standard error 1 / √3
    mean = Mean.of([1.0, 2.0, 3.0])
    assert (mean.mean, mean.number) == (2.0, 3)
    assert mean.high - mean.mean == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert mean.mean - mean.low == pytest.approx(mean.high - mean.mean)
    assert math.isnan(Mean.of([1.0]).low)


def test_the_interval_covers_as_often_as_it_says() -> None:
    import numpy as np

    draws = np.random.default_rng(0).normal(size=(4000, 3))
    means = [Mean.of(list(map(float, draw))) for draw in draws]
    covered = sum(mean.low <= 0 <= mean.high for mean in means) / len(means)
    # four standard errors of a share of 0.95
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))
