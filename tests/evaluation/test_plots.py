"""Axes do not exaggerate, and what is drawn is where it belongs."""

import math
import random

import pytest

from rlr.evaluation.plots import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Line, Plot
from rlr.evaluation.scales import Amount, Bounded, Level, linear
from rlr.records.seed_bands import band
from rlr.records.series import Series

DRAW = random.Random(0)
RANGES = [sorted(DRAW.uniform(-1, 1) * 10 ** DRAW.randint(-4, 5) for _ in range(2)) for _ in range(200)]


def share(scale, low, high):
    """The share of the height that a change takes."""
    axis = scale.axis([low, high])
    return axis.place(high) - axis.place(low)


@pytest.mark.parametrize("spread", [0.01, 1.5, 300.0])
@pytest.mark.parametrize("level", [0.0, 20.0, -1e4])
def test_a_change_of_a_tenth_of_the_deviation_takes_a_twentieth_of_the_height_at_most(spread, level):
    assert share(Level(spread), level, level + spread / 10) <= 0.05 + 1e-9
    # and a large one fills the plot
    assert share(Level(spread), level, level + 20 * spread) > 0.5


def test_without_a_deviation_a_change_of_a_hundredth_of_the_level_stays_small():
    assert share(Level(), 100.0, 101.0) <= 0.1
    assert share(Level(), 0.0, 0.0) == 0


def test_shares_and_cosines_have_all_of_their_range():
    assert share(Bounded(), 0.63, 0.67) == pytest.approx(0.04)
    assert share(Bounded(-1, 1), 0.0, 0.1) == pytest.approx(0.05)


def test_amounts_begin_at_zero():
    """Twice the amount is twice as high; over two orders of magnitude, equal ratios are equal distances."""
    axis = Amount().axis([4.0, 5.0])
    assert axis.low == 0
    assert axis.place(4.0) == pytest.approx(2 * axis.place(2.0))
    axis = Amount().axis([0.002, 3.0])
    assert axis.place(0.1) - axis.place(0.01) == pytest.approx(axis.place(1.0) - axis.place(0.1))
    assert 0 <= Amount().axis([0.0]).place(0.0) < 1


@pytest.mark.parametrize("scale", [Level(), Level(2.0), Amount()])
def test_everything_drawn_is_on_the_axis(scale):
    for low, high in RANGES:
        values = (low, high) if isinstance(scale, Level) else (abs(low), abs(high))
        axis = scale.axis(values)
        slack = 1e-8 * (axis.high - axis.low)
        assert all(axis.low - slack <= value <= axis.high + slack for value in values)
        assert 2 <= len(axis.ticks) <= 9
        assert len(set(axis.labels())) == len(axis.ticks)


def test_labels_are_the_ticks():
    for low, high in RANGES:
        axis = linear(low, high)
        step = axis.ticks[1] - axis.ticks[0]
        for tick, text in zip(axis.ticks, axis.labels(), strict=True):
            assert float(text.replace("−", "-")) == pytest.approx(tick, abs=0.01 * step + 0.005 * abs(tick))


def test_a_band_is_part_of_the_axis():
    line = Line("a", [0, 1], [1.0, 2.0], [0.0, -5.0], [2.0, 9.0])
    up = Plot("t", [line], Level(0.1)).up
    assert up.low <= -5
    assert up.high >= 9


def test_points_are_where_their_values_are():
    plot = Plot("t", [Line("a", [0, 5, 10], [0.0, math.nan, 1.0], points=True)], Bounded())
    first, last = plot.points(plot.lines[0])
    left, top, right, bottom = plot.frame
    assert (first.x, first.y, last.x, last.y) == (left, bottom, right, top)
    assert (left, top, right) == (LEFT, TOP, WIDTH - RIGHT)
    assert bottom < HEIGHT
    # a gap is not bridged
    assert len(plot.paths(plot.lines[0])) == 2
    assert last.text == "a, updates 10: 1"


# ---------------------------------------------------------------- series


def test_smoothing_keeps_straight_lines_and_the_place_of_a_step():
    at = tuple(map(float, range(40)))
    line = Series(at, tuple(3 - 0.5 * x for x in at))
    assert line.smoothed(9).values == pytest.approx(line.values)
    step = Series(at, tuple(float(x >= 20) for x in at)).smoothed(9).values
    # symmetric about the step, between 19 and 20
    assert all(step[19 - k] == pytest.approx(1 - step[20 + k]) for k in range(20))


def test_smoothing_lessens_noise():
    noise = Series(tuple(map(float, range(400))), tuple(DRAW.gauss(0, 1) for _ in range(400)))
    inner = noise.smoothed(25).values[50:350]
    # the variance of a mean of 25, within four standard errors of the estimate from 300 dependent values
    assert sum(x * x for x in inner) / len(inner) == pytest.approx(1 / 25, rel=1.0)


def test_thinning_keeps_the_mean():
    series = Series(tuple(map(float, range(1000))), tuple(float(k % 7) for k in range(1000)))
    thin = series.thinned(100)
    assert len(thin) == 100
    assert sum(thin.values) / 100 == pytest.approx(sum(series.values) / 1000)


def test_a_band_covers_its_seeds_and_does_not_go_beyond_them():
    one, two = Series((0.0, 2.0, 4.0), (0.0, 2.0, 4.0)), Series((1.0, 3.0, 9.0), (5.0, 5.0, 5.0))
    mean, low, high = band([one, two])
    assert mean.at == (1.0, 2.0, 3.0, 4.0)
    assert low.values == (1.0, 2.0, 3.0, 4.0)
    assert high.values == (5.0,) * 4
    assert mean.values == (3.0, 3.5, 4.0, 4.5)


@pytest.mark.parametrize("values", [[-0.06525, -0.06481], [20.0, 21.0], [-1234567.0, -1234560.0]])
def test_labels_of_the_axis_have_their_place(values):
    plot = Plot("a", [Line("b", [0.0, 1.0], values, points=True)], Level())
    left = plot.frame[0]
    # the widest digits of usual fonts are 0.63 of their height of 13
    assert left >= 6 + max(len(row.text) for row in plot.rows) * 0.63 * 13
    first, last = plot.points(plot.lines[0])
    assert (first.x, last.x) == (round(left, 1), WIDTH - RIGHT)
    assert plot.columns[0].at == left
