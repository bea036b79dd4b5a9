"""On a curved chain with a curved reward there is no closed form: every unbiased estimator agrees with full backprop."""

import pytest
import torch

from rlr.chain import Chain
from rlr.estimators import (
    RLR,
    AllSteps,
    Estimator,
    FirstOrder,
    HalfOrder,
    HalfOrderRLR,
    LookAhead,
    SharedDirection,
    ZerothOrder,
)
from rlr.samplers import DDIM
from tests.estimators.problems import Curved, estimate, wavy

STEPS = 5
ZO = ZerothOrder(scale=1e-3)


def draws(estimator: Estimator, count: int, batch: int = 256) -> torch.Tensor:
    chain = Chain(Curved(), DDIM(STEPS, eta=1.0))
    return torch.stack([estimate(estimator, chain, wavy, batch, seed) for seed in range(count)])


@pytest.fixture(scope="module")
def reference() -> tuple[torch.Tensor, torch.Tensor]:
    sample = draws(FirstOrder(AllSteps()), 100, 2048)
    return sample.mean(0), sample.std(0) / 100**0.5


def deviations(sample: torch.Tensor, reference: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    mean, error = reference
    return (sample.mean(0) - mean).abs() / (sample.std(0) ** 2 / len(sample) + error**2).sqrt()


UNBIASED = {
    "REINFORCE": HalfOrder(1),
    "half order, h = 2": HalfOrder(2),
    "half order, h = 2, look-ahead": HalfOrder(2, control=LookAhead()),
    "zeroth order": ZO,
    "RLR": RLR(2, zeroth=ZO),
    "RLR, one-point": RLR(2, zeroth=ZerothOrder(scale=1e-3, antithetic=False)),
    "half-order RLR": HalfOrderRLR(2),
    "half-order RLR, look-ahead": HalfOrderRLR(2, None, control=LookAhead()),
}


@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased(name: str, reference: tuple[torch.Tensor, torch.Tensor]) -> None:
    # 20 coordinates are compared at once: 4.5 standard errors here are 4 for one
    assert deviations(draws(UNBIASED[name], 40, 1024), reference).max() < 4.5


@pytest.mark.parametrize(
    "estimator", [FirstOrder(1), FirstOrder(3), RLR(2, zeroth=False)], ids=["k = 1", "k = 3", "V2"]
)
def test_bias_is_detected(estimator: Estimator, reference: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert deviations(draws(estimator, 40, 2048), reference).max() > 10


def test_variances_are_ordered_as_the_theory_says() -> None:
    truncated, full, controlled, plain, drawn, zeroth = (
        draws(e, 60).var(0).sum().item()
        for e in (
            FirstOrder(1),
            FirstOrder(AllSteps()),
            HalfOrderRLR(1, None, control=LookAhead()),
            HalfOrderRLR(1, None),
            HalfOrderRLR(1, 1),
            RLR(1, zeroth=ZerothOrder(scale=1e-3, perturbation=SharedDirection())),
        )
    )
    assert truncated < full < controlled < plain < drawn
    assert plain < zeroth


def test_longer_first_order_buys_variance_and_keeps_the_mean(reference: tuple[torch.Tensor, torch.Tensor]) -> None:
    sample = draws(HalfOrderRLR(1, None, steps=3), 60, 512)
    assert deviations(sample, reference).max() < 4.5
    assert sample.var(0).sum() < draws(HalfOrderRLR(1, None), 60, 512).var(0).sum()


def test_one_epsilon_for_all_steps_has_less_variance_than_one_a_step() -> None:
    shared, per_step = (draws(ZerothOrder(scale=1e-3, per_step=p), 40).var(0).sum() for p in (False, True))
    # |C| = 5 times by theory where the steps' gradients agree; they do only in part
    assert shared < per_step
