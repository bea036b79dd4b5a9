"""The mean of every estimator is the closed-form gradient of the steps it claims; of a sabotaged one it is not.

On a linear-Gaussian chain with a quadratic reward, in float64. Unbiased means within 4 standard errors; a bias is
detected beyond 10.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from rlr.chain import Chain
from rlr.estimators import (
    RLR,
    AllSteps,
    ConstantCoefficients,
    Estimator,
    FirstOrder,
    HalfOrder,
    HalfOrderRLR,
    LeaveOneOutRegression,
    LookAhead,
    RunningMean,
    SharedDirection,
    Term,
    UniformSteps,
    Zero,
    ZerothOrder,
)
from rlr.estimators.half_order import half_order
from rlr.estimators.values import Value
from rlr.rollout import Rollout
from rlr.samplers import DDIM, Ancestral, FlowSDE
from tests.estimators.problems import Affine, Cosine, deviation, exact_gradients, flow_chain, linear_chain, quadratic

STEPS = 6
SMALL = 1e-3  # the smoothing bias of zeroth order, O(s²), is then far below a standard error


def claimed(steps: range | list[int]) -> torch.Tensor:
    return exact_gradients(linear_chain())[[t - 1 for t in steps]].sum(0)


WHOLE = range(1, STEPS + 1)


class Other(Value):
    """Another function of the sample than the reward of the problem."""

    def of(self, rollout: Rollout) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: x[:, 0] - 0.3 * x[:, 1] ** 2


UNBIASED = {
    "full backpropagation": (FirstOrder(AllSteps()), WHOLE),
    "first order, 1 step": (FirstOrder(1), [1]),
    "first order, 3 steps": (FirstOrder(3), [1, 2, 3]),
    "half order, h = 1 (REINFORCE)": (HalfOrder(1), WHOLE),
    "half order, no baseline": (HalfOrder(1, baseline=Zero()), WHOLE),
    "half order, h = 2": (HalfOrder(2), WHOLE),
    "half order, h = 4, uneven partition": (HalfOrder(4), WHOLE),
    "half order, h = 2, 2 segments of 3": (HalfOrder(2, segments=2), WHOLE),
    "half order, the last 2 steps left out": (HalfOrder(3, skip_last=2), [3, 4, 5, 6]),
    "half order, look-ahead": (HalfOrder(2, control=LookAhead()), WHOLE),
    "half order, look-ahead, a = 1": (HalfOrder(2, control=LookAhead(ConstantCoefficients())), WHOLE),
    "half order, look-ahead, fitted on the others": (HalfOrder(2, control=LookAhead(LeaveOneOutRegression())), WHOLE),
    "half order, look-ahead, increments": (HalfOrder(1, control=LookAhead(increments=True)), WHOLE),
    "half order, look-ahead, increments and start value, constants": (
        HalfOrder(1, control=LookAhead(ConstantCoefficients((0.8, -0.5, 0.7)), increments=True)),
        WHOLE,
    ),
    "half order, look-ahead, stride 2": (HalfOrder(2, control=LookAhead(stride=2)), WHOLE),
    "half order, look-ahead, 2 segments of 3": (HalfOrder(2, segments=2, control=LookAhead(increments=True)), WHOLE),
    "half order, look-ahead, one baseline for all": (HalfOrder(2, baseline=Zero(), control=LookAhead()), WHOLE),
    "half order, look-ahead by another reward": (HalfOrder(2, control=LookAhead(value=Other())), WHOLE),
    "zeroth order, two-point": (ZerothOrder(scale=SMALL), WHOLE),
    "zeroth order, two-point, 3 directions": (ZerothOrder(3, scale=SMALL), WHOLE),
    "zeroth order, two-point, per step": (ZerothOrder(scale=SMALL, per_step=True), WHOLE),
    "zeroth order, one-point": (ZerothOrder(scale=SMALL, antithetic=False), WHOLE),
    "RLR": (RLR(2, zeroth=ZerothOrder(scale=SMALL)), WHOLE),
    "RLR, h = 1": (RLR(1, zeroth=ZerothOrder(scale=SMALL)), WHOLE),
    "RLR, the sub-chain is all the rest": (RLR(5, zeroth=ZerothOrder(scale=SMALL)), WHOLE),
    "RLR, 2 first-order steps": (RLR(2, steps=2, zeroth=ZerothOrder(scale=SMALL)), WHOLE),
    "RLR, no first order (any reward)": (RLR(3, steps=0, zeroth=ZerothOrder(scale=SMALL)), WHOLE),
    "RLR, per step": (RLR(2, zeroth=ZerothOrder(scale=SMALL, per_step=True)), WHOLE),
    "RLR, one-point": (RLR(2, zeroth=ZerothOrder(scale=SMALL, antithetic=False)), WHOLE),
    "RLR, one-point, per step": (RLR(2, zeroth=ZerothOrder(scale=SMALL, antithetic=False, per_step=True)), WHOLE),
    "RLR, look-ahead": (RLR(2, zeroth=ZerothOrder(scale=SMALL), control=LookAhead()), WHOLE),
    "RLR without half order (V3)": (RLR(half=False, zeroth=ZerothOrder(scale=SMALL)), WHOLE),
    "RLR without either (V1)": (RLR(half=False, zeroth=False), [1]),
    "half-order RLR, 1 segment": (HalfOrderRLR(2), WHOLE),
    "half-order RLR, 2 segments": (HalfOrderRLR(2, segments=2), WHOLE),
    "half-order RLR, all segments, look-ahead": (HalfOrderRLR(2, None, control=LookAhead()), WHOLE),
    "half-order RLR, running mean": (HalfOrderRLR(2, baseline=RunningMean()), WHOLE),
}


@pytest.mark.parametrize("name", UNBIASED)
def test_mean_is_the_gradient_of_the_claimed_steps(name: str) -> None:
    estimator, steps = UNBIASED[name]
    chain = linear_chain()
    estimator.check(chain)
    assert deviation(estimator, chain, quadratic, claimed(steps), *effort(estimator)) < 4


def effort(estimator: Estimator) -> tuple[int, int]:
    """Returns how many estimates to average, and of what batch.

    A direction and a choice of segments are shared by a batch, so larger batches do not replace more of them.
    """
    if isinstance(estimator, ZerothOrder) or getattr(estimator, "zeroth", None):
        return 200, 256
    drawn = getattr(getattr(estimator, "half", estimator), "segments", None) is not None
    return (100, 256) if drawn else (40, 640)


@pytest.mark.parametrize(
    "chain",
    [
        flow_chain(FlowSDE(5, 0.7)),
        Chain(Affine(Cosine()), Ancestral(5, variance=0.5)),
        Chain(Affine(Cosine()), DDIM(5, eta=0.4)),
    ],
    ids=["FlowSDE", "Ancestral", "DDIM, η = 0.4"],
)
@pytest.mark.parametrize("name", ["half order, h = 2", "half-order RLR, 1 segment", "RLR"])
def test_mean_is_the_gradient_under_every_sampler(chain: Chain, name: str) -> None:
    estimator, _ = UNBIASED[name]
    assert deviation(estimator, chain, quadratic, exact_gradients(chain).sum(0)) < 4


def test_the_parts_of_the_closed_form_are_its_whole() -> None:
    chain = linear_chain()
    w = chain.model.w
    noises = torch.randn((STEPS + 1, 400_000, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def value() -> float:
        return quadratic(chain.sample(chain.encode(["x"] * noises.shape[1]), noises).states[0]).mean().item()

    for k in range(3):  # common random numbers leave only the error of the mean of a derivative
        w.data[k] += 1e-4
        ahead = value()
        w.data[k] -= 2e-4
        slope = (ahead - value()) / 2e-4
        w.data[k] += 1e-4
        assert slope == pytest.approx(claimed(WHOLE)[k].item(), rel=0.02)


# --- what must be detected ------------------------------------------------------------------------------------------


class Redrawn(HalfOrder):
    """Sabotage: the inner noise of a sub-chain is drawn again instead of taken from the record."""

    def terms(self, rollout: Rollout, weight: float = 1.0) -> Iterator[Term]:
        generator = torch.Generator().manual_seed(rollout.seed + 10**6)
        fresh = torch.randn(rollout.trajectory.noises.shape, generator=generator, dtype=torch.float64)
        forged = replace(rollout.trajectory, noises=fresh)
        yield from super().terms(
            Rollout(rollout.chain, forged, rollout.objective, rollout.prompts, rollout.seed), weight
        )


class Overlapping(RLR):
    """Sabotage: zeroth order covers the sub-chain too, which half order has covered already."""

    def rest(self, chain: Chain, seed: int) -> tuple[int, ...]:
        return tuple(range(chain.steps, self.steps, -1))


def overlapping_first_order() -> HalfOrderRLR:
    """Sabotage: the partition includes the step that first order covers."""
    estimator = HalfOrderRLR(2, segments=None)
    estimator.half.skip_last = 0
    return estimator


class Unweighted(HalfOrder):
    """Sabotage: a drawn segment does not stand for those left out."""

    def terms(self, rollout: Rollout, weight: float = 1.0) -> Iterator[Term]:
        yield from self.terms_of(dict.fromkeys(self.draw(rollout), 1.0), rollout, weight)


class PlainRegression(HalfOrder):
    """Sabotage: the control variate's gradient is subtracted and never added back."""

    def terms(self, rollout: Rollout, weight: float = 1.0) -> Iterator[Term]:
        for segment in self.partition(rollout.chain):
            with torch.no_grad():
                predicted = rollout.score(rollout.predict(segment.stop))
            yield half_order(rollout, rollout.rewards - predicted, segment, weight)


BIASED = {
    "truncated backpropagation, 1 step": FirstOrder(1),
    "truncated backpropagation, 3 steps": FirstOrder(3),
    "truncated backpropagation, random": FirstOrder(UniformSteps(1, 4)),
    "RLR without zeroth order (V2)": RLR(2, zeroth=False),
    "RLR without either (V1)": RLR(half=False, zeroth=False),
    "half order, inner noise redrawn": Redrawn(3),
    "first and half order overlap": overlapping_first_order(),
    "half order, missing weight": Unweighted(1, segments=2),
    "half-order RLR, a halved weight": HalfOrderRLR(2, None, half_weight=0.5),
    "control variate, not added back": PlainRegression(2),
    "look-ahead, pathwise half alone": HalfOrder(2, control=LookAhead(ratio_weight=0.0)),
    "look-ahead, ratio half alone": HalfOrder(2, control=LookAhead(path_weight=0.0)),
}


@pytest.mark.parametrize("name", BIASED)
def test_a_bias_is_detected(name: str) -> None:
    # 14 and more
    assert deviation(BIASED[name], linear_chain(), quadratic, claimed(WHOLE), count=40, batch=2048) > 10


def test_an_overlap_of_half_and_zeroth_order_is_detected() -> None:
    # the longer the sub-chain, the more is counted twice
    estimator = Overlapping(STEPS - 1, zeroth=ZerothOrder(scale=SMALL))
    assert deviation(estimator, linear_chain(), quadratic, claimed(WHOLE), count=400) > 10


def test_shared_and_per_sample_directions_have_one_mean_and_the_expected_variances() -> None:
    from tests.estimators.problems import Curved, estimate, wavy

    chain = Chain(Curved(), DDIM(4, eta=1.0))
    variances, means, errors = [], [], []
    for perturbation in (SharedDirection(), None):
        estimator = ZerothOrder(scale=SMALL, perturbation=perturbation)
        draws = torch.stack([estimate(estimator, chain, wavy, 16, seed) for seed in range(120)])
        variances.append(draws.var(0).sum().item())
        means.append(draws.mean(0))
        errors.append(draws.std(0) / 120**0.5)
    deviations = (means[0] - means[1]).abs() / (errors[0] ** 2 + errors[1] ** 2).sqrt()
    assert deviations.max() < 4
    assert variances[1] < 0.35 * variances[0]
