"""Norms and cosines of draws: known answers."""

import math

import pytest
import torch

from experiments.paper.problems import Images
from experiments.paper.tails import DEPTHS, DepthMeasurement, Tails, gradient_statistics, jackknife
from experiments.settings import SD14, TINY
from rlr.analysis.accuracy import Sample
from rlr.estimators import FirstOrder
from rlr.rewards import Brightness


def test_draws_that_agree_have_cosine_one_whatever_their_lengths() -> None:
    lengths = torch.arange(1, 12, dtype=torch.float64)[:, None]
    found = gradient_statistics(lengths * torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    assert (found["median"], found["ninth"], found["most"]) == pytest.approx((30, 50, 55))
    assert found["cosine"] == pytest.approx(1)
    assert found["cosine_error"] == pytest.approx(0, abs=1e-12)


def test_the_cosine_is_the_mean_over_pairs() -> None:
    directions = torch.nn.functional.normalize(
        torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).double(), dim=1
    )
    pairs = [float(directions[i] @ directions[j]) for i in range(7) for j in range(i)]
    assert Sample(directions).square.item() == pytest.approx(sum(pairs) / len(pairs))


def test_the_error_is_that_of_repetitions() -> None:
    """Directions about an axis: the jackknife's error is the spread over repetitions."""
    draws = torch.randn(200, 40, 3, generator=torch.Generator().manual_seed(1)).double() + torch.tensor([1.0, 0, 0])
    directions = torch.nn.functional.normalize(draws, dim=2)
    spread = torch.stack([Sample(one).square for one in directions]).std().item()
    error = math.sqrt(sum(jackknife(one) ** 2 for one in directions[:50]) / 50)
    assert error == pytest.approx(spread, rel=0.2)


def test_there_is_a_run_for_every_depth_and_reward() -> None:
    runs = Tails().runs(TINY, (0, 1, 2))
    assert len(runs) == 2 * len(DEPTHS) == len({run.title for run in runs}) == len({run.command for run in runs})
    with pytest.raises(ValueError, match="measured for the setting tiny alone"):
        Tails().runs(SD14, (0,))


def test_a_row_is_of_the_gradients_of_its_depth(tmp_path) -> None:
    problem = Images("Brightness", Brightness, 3, 2, 3, 0, tmp_path)
    (row,) = DepthMeasurement(problem, 2).rows()
    norms = torch.stack([problem.problem.gradient(FirstOrder(2), seed) for seed in problem.seeds])
    norms = norms.double().norm(dim=1)
    assert row["most"] == pytest.approx(norms.max().item())
    assert row["median"] == pytest.approx(norms.median().item())
    assert list(tmp_path.iterdir()) == []
