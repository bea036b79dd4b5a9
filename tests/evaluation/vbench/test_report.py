"""The paper's table is taken over without a mistake, and its average is the one that it says."""

import pytest

from rlr.evaluation.vbench.dimensions import SIX
from rlr.evaluation.vbench.report import PAPER, Report, formula, weighted_average
from rlr.evaluation.vbench.scoring import Score

NAMES = [dimension.name for dimension in SIX]


def report(scores):
    return Report("mine", {name: Score(value, {}) for name, value in scores.items()}, {})


def average(row, weights):
    return sum(weight * score for weight, score in zip(weights, row, strict=True)) / sum(weights)


@pytest.mark.parametrize("method", PAPER)
def test_the_average_of_the_paper_is_this_one(method):
    *six, published = PAPER[method]
    assert weighted_average(dict(zip(NAMES, six, strict=True))) == pytest.approx(published, abs=0.01)


def test_other_weights_would_be_noticed():
    for weights in ((1, 1, 1, 1, 1, 1), (1, 1, 1, 0, 1, 1), (1, 1, 1, 0.5, 1, 0.9)):
        assert any(abs(average(row[:6], weights) - row[6]) > 0.1 for row in PAPER.values())
    assert [dimension.weight for dimension in SIX] == [1, 1, 1, 0.5, 1, 1]


def test_the_exact_weights_are_stated():
    assert formula() == (
        "Weighted Average = (1 × Subject Consistency + 1 × Background Consistency + 1 × Motion Smoothness + "
        "0.5 × Dynamic Degree + 1 × Aesthetic Quality + 1 × Imaging Quality) / 5.5, on raw percentages"
    )


def test_a_row_beside_those_of_the_paper():
    scores = dict(zip(NAMES, [number / 100 for number in PAPER["RLR"][:6]], strict=True))
    table = report(scores).table
    head, rows = table.head, table.rows
    assert head[0] == "Methods"
    assert head[1:-1] == tuple(dimension.title for dimension in SIX)
    assert head[-1] == "Weighted Average"
    assert [row[0] for row in rows] == [*(f"{method} (paper)" for method in PAPER), "mine"]
    assert rows[-1][1:] == rows[-2][1:] == ("97.53", "97.19", "98.05", "70.69", "66.15", "71.08", "84.61")


def test_without_all_six_there_is_no_average():
    scores = dict.fromkeys(NAMES[:5], 0.5)
    assert weighted_average(scores) is None
    assert report(scores).table.rows[-1] == ("mine", *["50.00"] * 5, "–", "–")


def test_what_is_outside_the_average_is_stated_apart():
    stated = report({**dict.fromkeys(NAMES, 0.5), "temporal_flickering": 0.987}).text()
    assert "| mine" in stated
    assert "\n\nTemporal Flickering, outside the average: 98.70\n\n" in stated
    assert stated.endswith(formula())
    assert "Temporal" not in report(dict.fromkeys(NAMES, 0.5)).text()
