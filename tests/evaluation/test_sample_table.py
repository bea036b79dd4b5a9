"""Samples are listed beside their own prompt and scores."""

import math

import torch

from rlr.evaluation.results import Measurement
from rlr.evaluation.sample_table import sample_table
from rlr.evaluation.samples import SampleSet

SAMPLES = SampleSet(["a", "b", "c"], samples=2)
NOW = {row: torch.full((3, 2, 2), row / 10) for row in range(6)}
BASE = {row: torch.full((3, 2, 2), row / 20) for row in (1, 4)}


def scored(**settings: object) -> Measurement:
    return Measurement("Level", torch.arange(6.0).reshape(3, 2), **settings)


def test_rows_are_the_samples_that_both_models_show():
    base = torch.tensor([[0.5, 0.0], [0.0, 0.0], [1.0, 0.0]])
    whole = Measurement("diversity", torch.zeros(1, 1), per_sample=False)
    table = sample_table(SAMPLES, [scored(base=base), whole], NOW, BASE)
    assert table.head == ["prompt", "base", "aligned", "Level base", "Level aligned", "Level difference"]
    assert [(row.prompt, *row.scores) for row in table.rows] == [("a", 0.0, 1.0, 1.0), ("c", 1.0, 4.0, 3.0)]
    for row, number in zip(table.rows, (1, 4), strict=True):
        assert torch.equal(row.samples[0], BASE[number])
        assert torch.equal(row.samples[1], NOW[number])


def test_without_a_base_model_there_is_one_column():
    table = sample_table(SAMPLES, [scored()], NOW)
    assert table.head == ["prompt", "aligned", "Level aligned"]
    assert [row.scores for row in table.rows] == [[float(k)] for k in range(6)]


def test_a_base_model_that_was_not_measured_has_no_score():
    (row, _) = sample_table(SAMPLES, [scored()], NOW, BASE).rows
    assert math.isnan(row.scores[0])
    assert row.scores[1] == 1.0
