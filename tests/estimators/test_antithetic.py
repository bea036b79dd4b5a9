"""Pairs of samples with opposite noise: the same mean, and less variance where the estimate is odd in the noise."""

import re

import pytest
import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators import (
    AllSteps,
    Antithetic,
    Estimator,
    FirstOrder,
    GroupLeaveOneOut,
    HalfOrder,
    HalfOrderRLR,
    LeaveOneOut,
    LeaveOneOutRegression,
    LookAhead,
    RunningMean,
    Sum,
)
from rlr.estimators.antithetic import mirrored
from rlr.rollout import unconditional
from rlr.samplers import DDIM
from tests.estimators.problems import (
    Curved,
    deviation,
    estimate,
    exact_gradients,
    linear_chain,
    monte_carlo,
    quadratic,
    wavy,
)


def linear(x: Tensor) -> Tensor:
    return x[:, 0] - 2 * x[:, 1]


def test_every_second_noise_is_minus_the_one_before_it_and_the_others_stay() -> None:
    noises = torch.randn(5, 6, 2, 3, generator=torch.Generator().manual_seed(0))
    found = mirrored(noises)
    assert found.shape == noises.shape
    assert torch.equal(found[:, ::2], noises[:, ::2])
    assert torch.equal(found[:, 1::2], -noises[:, ::2])


def test_a_sample_depends_on_its_number_alone() -> None:
    """The pairs of a batch of six are those of batches of two and four."""
    chain, estimator = Chain(Curved(), DDIM(4, eta=1.0)), Antithetic(FirstOrder(1))

    def samples(numbers: range) -> Tensor:
        noises = chain.draw(numbers).double()
        return estimator.rollout(chain, ["x"] * len(numbers), noises, unconditional(wavy)).trajectory.states

    whole = samples(range(6))
    assert torch.equal(whole, torch.cat([samples(range(2)), samples(range(2, 6))], 1))
    assert torch.equal(whole[-1, 0], -whole[-1, 1])


def test_an_estimate_that_is_odd_in_the_noise_has_no_variance() -> None:
    """On an affine chain the gradient of a linear reward is affine in the noise: each pair alone gives its mean."""
    chain, plain = linear_chain(), FirstOrder(AllSteps())
    pairs = torch.stack([estimate(Antithetic(plain), chain, linear, 2, seed) for seed in range(3)])
    torch.testing.assert_close(pairs, pairs[:1].expand_as(pairs), rtol=1e-12, atol=1e-12)
    mean, error = monte_carlo(lambda seed: estimate(plain, chain, linear, 256, seed), 20)
    assert error.max() > 1e-3
    assert ((mean - pairs[0]).abs() < 4 * error + 1e-12).all()


def test_the_variance_of_a_likelihood_ratio_falls_for_an_even_reward_only() -> None:
    chain = linear_chain(3)

    def variance(estimator: HalfOrder | Antithetic, reward) -> float:  # type: ignore[no-untyped-def]
        return torch.stack([estimate(estimator, chain, reward, 16, seed) for seed in range(60)]).var(0)[1].item()

    def even(x: Tensor) -> Tensor:
        return (x - center).square().sum(1)

    # the samples are symmetric around this point
    center = chain.sample(chain.encode(["x"]), torch.zeros(4, 1, 2, dtype=torch.float64)).states[0, 0]
    plain = HalfOrder(1)
    paired = Antithetic(HalfOrder(1, baseline=LeaveOneOut(2)))
    assert variance(paired, even) < 1e-20 < 1e-3 * variance(plain, even)
    assert variance(paired, linear) > 0.5 * variance(plain, linear)


PAIRS = {
    "running mean": RunningMean(),
    "two left out": LeaveOneOut(2),
    "two of a group left out": GroupLeaveOneOut(4, 2),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_mean_is_the_gradient(name: str) -> None:
    chain = linear_chain(3)
    estimator = Antithetic(HalfOrder(1, baseline=PAIRS[name]))
    assert deviation(estimator, chain, quadratic, exact_gradients(chain).sum(0)) < 4


def test_a_baseline_with_the_other_of_a_pair_is_detected() -> None:
    chain = linear_chain(3)
    estimator = Antithetic(HalfOrder(1, baseline=GroupLeaveOneOut(4)))
    assert deviation(estimator, chain, quadratic, exact_gradients(chain).sum(0), 40, 4096) > 10


@pytest.mark.parametrize(
    ("half", "found"),
    [
        (HalfOrder(1), "found LeaveOneOut with together=1"),
        (HalfOrder(1, baseline=GroupLeaveOneOut(4)), "found GroupLeaveOneOut with together=1"),
        (HalfOrderRLR(1, None), "found LeaveOneOut with together=1"),
        (HalfOrder(1, control=LookAhead()), "found LeaveOneOut with together=1"),
        (HalfOrder(1, baseline=LeaveOneOut(2), control=LookAhead(LeaveOneOutRegression())), "use RunningRegression"),
        (Sum([FirstOrder(1), HalfOrder(1)]), "set baseline: {class_path: LeaveOneOut, init_args: {together: 2}}"),
    ],
)
def test_what_the_other_of_a_pair_would_bias_is_refused(half: Estimator, found: str) -> None:
    with pytest.raises(ValueError, match=re.escape(found)):
        Antithetic(half).check(linear_chain(3))


def test_the_pathwise_half_alone_has_no_baseline_that_a_pair_could_bias() -> None:
    Antithetic(HalfOrderRLR(1, None, control=LookAhead(ratio_weight=0.0))).check(linear_chain(3))
    for baseline in PAIRS.values():
        Antithetic(HalfOrder(1, baseline=baseline)).check(linear_chain(3))


def test_the_mean_with_look_ahead_is_the_gradient() -> None:
    chain = linear_chain(3)
    estimator = Antithetic(HalfOrder(1, baseline=LeaveOneOut(2), control=LookAhead(increments=True)))
    assert deviation(estimator, chain, quadratic, exact_gradients(chain).sum(0)) < 4


def test_what_is_left_out_is_the_block() -> None:
    r = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], dtype=torch.float64)
    for k in (1, 2, 3):
        others = [torch.cat([r[: i // k * k], r[i // k * k + k :]]).mean() for i in range(6)]
        torch.testing.assert_close(LeaveOneOut(k).advantages(r), r - torch.stack(others))
        groups = torch.cat([r, 2 * r])
        expected = torch.cat([r - torch.stack(others), 2 * (r - torch.stack(others))])
        torch.testing.assert_close(GroupLeaveOneOut(6, k).advantages(groups), expected)
    # one alone gives the digits that it always gave
    assert torch.equal(LeaveOneOut().advantages(r), (r - r.mean()) * 6 / 5)


def test_the_state_and_the_needs_are_those_of_the_estimator() -> None:
    estimator = Antithetic(HalfOrder(1, baseline=RunningMean()))
    estimate(estimator, linear_chain(3), quadratic, 4, 0)
    other = Antithetic(HalfOrder(1, baseline=RunningMean()))
    other.load_state_dict(estimator.state_dict())
    assert other.state_dict() == estimator.state_dict() != Antithetic(HalfOrder(1, baseline=RunningMean())).state_dict()
    assert Antithetic(FirstOrder(1)).differentiable
    assert not estimator.differentiable
    with pytest.raises(ValueError, match="σ = 0"):
        estimator.check(linear_chain(sampler=DDIM(3, eta=0.0)))


def test_impossible_pairs_are_refused_with_a_remedy() -> None:
    chain, noises = linear_chain(3), torch.zeros(4, 4, 2, dtype=torch.float64)
    for prompts in (["a", "b", "b", "a"], ["a", "a", "a"]):
        with pytest.raises(ValueError, match=r"set data\.samples_per_prompt to an even number"):
            Antithetic(FirstOrder(1)).rollout(chain, prompts, noises[:, : len(prompts)], unconditional(linear))
    with pytest.raises(ValueError, match=r"data.batch_size >= 4, a multiple of 2"):
        LeaveOneOut(2).advantages(torch.zeros(2))
    with pytest.raises(ValueError, match="at least 4 samples of a prompt, a multiple of 2, got 5"):
        GroupLeaveOneOut(5, 2)
    with pytest.raises(ValueError, match=r"LeaveOneOut\.together: expected at least 1"):
        LeaveOneOut(0)
