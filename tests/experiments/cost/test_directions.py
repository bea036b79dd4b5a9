"""Kinds of zeroth-order directions: without bias unless they say so, and with the known variances."""

import pytest
import torch

from experiments.cost import antithetic, directions
from experiments.cost.points import Points, reward
from rlr.analysis.problem import Problem
from rlr.chain import Chain
from rlr.estimators import AllSteps, FirstOrder
from rlr.rollout import unconditional
from rlr.samplers import DDIM

D, BATCH = 12, 4
G = torch.randn(BATCH, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
GUIDE = torch.randn(D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
UNBIASED = {
    "independent": directions.independent,
    "one a sample": directions.per_sample,
    "orthogonal": directions.orthogonal,
    "scaled": directions.scaled(GUIDE.abs() + 0.1),
    "guided": directions.guided(GUIDE),
    "guided by its own": directions.Own(),
}


def draws(kind: directions.Directions, n: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.stack([kind(G, n, generator) for _ in range(count)])


@pytest.mark.parametrize("name", UNBIASED)
def test_the_mean_is_the_gradient_of_the_batch(name: str) -> None:
    found = draws(UNBIASED[name], 4, 1000)
    deviation = (found.mean(0) - G.mean(0)).abs() / (found.std(0) / 1000**0.5)
    assert deviation.max() < 4


def test_the_errors_of_independent_and_orthogonal_directions_are_the_known_ones() -> None:
    n, g = 4, G.mean(0)

    def error(kind: directions.Directions) -> float:
        return ((draws(kind, n, 1000) - g).square().sum(1).mean() / g.square().sum()).item()

    assert error(directions.independent) == pytest.approx((D + 1) / n, rel=0.1)
    assert error(directions.orthogonal) == pytest.approx(D / n - 1, rel=0.1)


def test_a_mask_estimates_its_weights_only() -> None:
    mask = torch.arange(D) < 5
    found = draws(directions.masked(mask), 4, 500)
    assert (found[:, 5:] == 0).all()
    assert ((found.mean(0) - G.mean(0))[:5].abs() / (found.std(0)[:5] / 500**0.5)).max() < 4


def test_the_gradients_of_the_samples_add_up_to_that_of_the_batch() -> None:
    chain, estimator = Chain(Points(), DDIM(3, 1.0)), FirstOrder(AllSteps())
    each = directions.gradients(chain, 6, 0, estimator)
    whole = Problem(chain, unconditional(reward), [""] * 6).gradient(estimator, 0)
    torch.testing.assert_close(each.mean(0), whole, rtol=1e-10, atol=1e-12)


def test_mirrored_noises_and_their_correlation() -> None:
    z = antithetic.Mirrored(Chain(Points(), DDIM(3, 1.0)), unconditional(reward), [""] * 6).noises(0)
    assert torch.equal(z[:, :3], -z[:, 3:])
    plus = torch.randn(400, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for minus, expected in ((-plus, -1.0), (plus, 1.0), (plus.roll(1, 0), 0.0)):
        rho, error = antithetic.correlation(torch.cat([plus, minus]))
        assert rho == pytest.approx(expected, abs=4 * error + 0.02)
