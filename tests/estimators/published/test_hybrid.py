"""RTDMD's hybrid policy gradient: GRPO's terms and first order's, in one unit the whole gradient, with a hinge."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators import GRPO, Estimator, FirstOrder, GroupStatistics, HybridPolicyGradient, Term
from rlr.estimators.surrogates import ImportanceRatio
from rlr.rewards import Brightness, JPEGCompressibility
from rlr.samplers import CPS, DDIM, Sampler
from rlr.schedules import RectifiedFlow, Schedule
from tests.estimators import problems
from tests.estimators.problems import Affine, deviation, estimate, exact_gradients, quadratic

D, T, BATCH = 2, 5, 8

CHAINS = {
    "flow whose last step has no noise": lambda: Chain(Affine(RectifiedFlow()), CPS(T, 0.9)),
    "every step has noise": lambda: Chain(Affine(), DDIM(T)),
}


def plain(**settings: object) -> HybridPolicyGradient:
    """Without division by a standard deviation, clips and margin."""
    return HybridPolicyGradient(**{"statistics": GroupStatistics(), "advantage_clip": None, **settings})


class Scaled(Estimator):
    """The terms in the unit of the gradient."""

    def __init__(self, inner: HybridPolicyGradient) -> None:
        self.inner = inner
        self.record = inner.record  # type: ignore[method-assign]

    def terms(self, rollout) -> Iterator[Term]:  # type: ignore[no-untyped-def]
        for term in self.inner.terms(rollout):
            yield term.scaled(D * (T - 1))


@pytest.mark.parametrize("name", CHAINS)
def test_with_the_weight_of_a_dimension_it_is_the_whole_gradient(name: str) -> None:
    policy = CHAINS[name]()
    exact = exact_gradients(policy).sum(0)
    assert deviation(Scaled(plain(weight=1 / D)), policy, quadratic, exact, count=75, batch=512) < 4
    # without the last step, or with twice its weight, it is another one
    assert deviation(Scaled(plain(weight=0.0)), policy, quadratic, exact, count=40, batch=512) > 10
    assert deviation(Scaled(plain(weight=2 / D)), policy, quadratic, exact, count=40, batch=512) > 10


@pytest.mark.parametrize("name", CHAINS)
def test_it_is_grpo_and_the_weighted_first_order(name: str) -> None:
    policy, weight = CHAINS[name](), 0.3
    found = estimate(HybridPolicyGradient(weight=weight), policy, quadratic, BATCH, 1)
    group = GRPO(num_minibatches=1, kl=0.0, surrogate=ImportanceRatio(1e-5))
    expected = estimate(group, policy, quadratic, BATCH, 1)
    expected = expected + weight / (T - 1) * estimate(FirstOrder(1), policy, quadratic, BATCH, 1)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_the_last_step_has_the_gradient_of_the_hinge() -> None:
    policy, margin = CHAINS["flow whose last step has no noise"](), -1.0

    def hinge(x: Tensor) -> Tensor:
        return -torch.relu(margin - quadratic(x))

    sampled = problems.rollout(plain(), policy, quadratic, BATCH, 1)
    above = int((sampled.rewards > margin).sum())
    assert 0 < above < BATCH
    found = [estimate(plain(margin=m), policy, quadratic, BATCH, 1) for m in (None, margin)]
    slopes = [estimate(FirstOrder(1), policy, reward, BATCH, 1) for reward in (quadratic, hinge)]
    torch.testing.assert_close(found[1] - found[0], 1e-4 / (T - 1) * (slopes[1] - slopes[0]), rtol=1e-6, atol=1e-14)
    assert (slopes[1] - slopes[0]).abs().max() > 1e-2


def chain(sampler: Sampler, schedule: Schedule | None = None) -> Chain:
    return Chain(Affine(schedule), sampler)


REFUSED = [
    (lambda: HybridPolicyGradient(weight=-1.0), "weight: expected at least 0"),
    (lambda: HybridPolicyGradient(reward=JPEGCompressibility()), "expected a differentiable reward"),
    (lambda: HybridPolicyGradient().check(chain(DDIM(T, 0.0))), "set DDIM's eta"),
    (lambda: HybridPolicyGradient().check(chain(DDIM(1))), "before the last 1"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_impossible_settings_are_refused(case: int) -> None:
    action, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        action()


def test_a_reward_of_the_last_step_makes_a_reward_without_a_gradient_possible() -> None:
    assert HybridPolicyGradient().differentiable
    assert not HybridPolicyGradient(reward=Brightness()).differentiable
