"""The share of the reward's variance that a control variate explains, against the closed form of the affine chain."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from rlr.analysis.explained import controls, correlation, described, explained
from rlr.analysis.linear import TARGET, Affine, affine, linear_chain, quadratic
from rlr.analysis.problem import Problem
from rlr.chain import Chain
from rlr.estimators import LookAhead, StandIn
from rlr.rewards.base import Reward
from rlr.rollout import Rollout, unconditional
from rlr.samplers import DDIM

STEPS = 5


class Decoded(Affine):
    """The affine model with a decoder, because pixels must be in [0, 1]."""

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        return x.sigmoid()


class Distance(Reward):
    """The reward of the chain, as a function of pixels."""

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return quadratic(samples.logit())


class First(Reward):
    """The first pixel."""

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples[:, 0]


def mean(chain: Chain, t: int, x: Tensor) -> Tensor:
    """The mean of step t."""
    w = chain.model.get_parameter("w").detach()
    return chain.sampler.transition(affine(w, x, chain.grid.times[t]), x, t, chain.grid).mean


def denoised(chain: Chain, j: int, x: Tensor) -> Tensor:
    """The prediction of the clean sample in one step."""
    return affine(chain.model.get_parameter("w").detach(), x, chain.grid.times[j])


def in_steps_of_one(chain: Chain, j: int, x: Tensor) -> Tensor:
    """The prediction of the clean sample in j deterministic steps."""
    for t in range(j, 1, -1):
        x = chain.leap(denoised(chain, t, x), x, t, t - 1)
    return denoised(chain, 1, x)


def closed_form(chain: Chain, j: int, predict: Callable[[Chain, int, Tensor], Tensor] = denoised) -> float:
    r"""The squared correlation of :math:`-|x_0 - y|^2` and :math:`-|\hat x_0(x_j) - y|^2`, for normal states.

    For a normal pair with means m, n, variances s, t and covariance k: Cov(u², w²) = 2 k² + 4 m n k, Var(u²) = 2 s² + 4 m² s.
    """
    m, v, slope = torch.zeros(1, 2, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64), 1.0
    here = (m, v)
    for t in range(chain.steps, 0, -1):
        k = (mean(chain, t, torch.ones_like(m)) - mean(chain, t, torch.zeros_like(m)))[0, 0]
        m, v = mean(chain, t, m), k**2 * v + chain.std(t) ** 2
        slope = 1.0 if t - 1 >= j else slope * k.item()
        here = (m, v) if t - 1 == j else here
    gain = (predict(chain, j, torch.ones_like(m)) - predict(chain, j, torch.zeros_like(m)))[0, 0]
    u, s = m[0] - TARGET, v
    w_mean, t_var = predict(chain, j, here[0])[0] - TARGET, gain**2 * here[1]
    covariance = slope * here[1] * gain
    both = (2 * covariance**2 + 4 * u * w_mean * covariance).sum()
    return (both**2 / ((2 * s**2 + 4 * u**2 * s).sum() * (2 * t_var**2 + 4 * w_mean**2 * t_var).sum())).item()


def rollouts(numbers: range, size: int = 500) -> list[Rollout]:
    problem = Problem(Chain(Decoded(), DDIM(STEPS, eta=1.0)), unconditional(quadratic), ["x"] * size)
    return [problem.rollout(number) for number in numbers]


def test_the_shares_are_those_of_the_closed_form() -> None:
    found, chain = explained(rollouts(range(8))), linear_chain(STEPS)
    assert [e.step for e in found] == [5, 4, 3, 2, 1]
    for e in found[:-1]:
        assert e.share == pytest.approx(closed_form(chain, e.step - 1), abs=4 * e.error)
    # the sample itself has its reward
    assert found[-1].share == pytest.approx(1)
    # a wrong state is seen
    assert abs(found[0].share - closed_form(chain, 1)) > 10 * found[0].error


@pytest.mark.parametrize("control", [LookAhead(stride=1), LookAhead(prediction_steps=STEPS)])
def test_predictions_have_the_steps_of_the_control_variate(control: LookAhead) -> None:
    (rollout,) = rollouts(range(1), 20)
    chain, states = rollout.chain, rollout.trajectory.states
    found, plain = controls(rollout, control), controls(rollout, LookAhead())
    for j in range(1, STEPS):
        torch.testing.assert_close(found[j], quadratic(in_steps_of_one(chain, j, states[j])))
        torch.testing.assert_close(plain[j], quadratic(denoised(chain, j, states[j])))
    assert (found[2:] - plain[2:]).abs().min() > 1e-4
    for e in explained(rollouts(range(8)), control)[:-1]:
        assert e.share == pytest.approx(closed_form(chain, e.step - 1, in_steps_of_one), abs=4 * e.error)


def test_a_stand_in_explains_what_it_predicts_of_rollouts_that_it_has_not_learned_from() -> None:
    earlier, later = rollouts(range(2)), rollouts(range(2, 6))
    rewards = torch.cat([rollout.rewards for rollout in later])
    values = [StandIn(Distance()), StandIn(First())]
    for value in values:
        control = LookAhead(value=value)
        # what has learned nothing is constant, and explains nothing
        assert all(math.isnan(e.share) for e in explained(later, control))
        for rollout in earlier:
            value.learn(rollout)
        found = explained(later, control)
        assert len(value.seen) == len(earlier)
        # two routes: a regression does not change a correlation
        for e in found[:-1]:
            scores = [value.reward(rollout.predict(e.step - 1).sigmoid(), rollout.prompts) for rollout in later]
            assert e.share == pytest.approx(correlation(rewards, torch.cat(scores).detach())[0], abs=1e-6)
    exact, own = explained(later, LookAhead(value=values[0])), explained(later)
    assert [e.share for e in exact] == pytest.approx([e.share for e in own], abs=1e-6)
    # of the sample itself a poor stand-in does not explain all
    assert found[-1].share < 0.9


def test_what_c_is_is_stated_in_words() -> None:
    assert described(LookAhead(), 10) == "the reward of a prediction of the clean sample in one step"
    assert described(LookAhead(stride=4, value=StandIn(Distance())), 10) == (
        "the value of StandIn of a prediction of the clean sample in at most 3 steps"
    )
    assert described(LookAhead(stride=4), 1).endswith("in one step")


def test_the_control_of_the_sample_is_its_reward() -> None:
    (rollout,) = rollouts(range(1), 4)
    found = controls(rollout, LookAhead())
    assert found.shape == (STEPS, 4)
    assert torch.equal(found[0], rollout.rewards)
    assert not found.requires_grad


def test_few_samples_of_independent_numbers_explain_nothing_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = [correlation(*torch.randn(2, 8, generator=generator))[0] for _ in range(4000)]
    # without the correction the mean would be 1/7; what is below 0 counts as 0
    assert sum(shares) / len(shares) < 0.1
    assert correlation(torch.arange(5.0), 3 - 2 * torch.arange(5.0))[0] == pytest.approx(1)
    assert correlation(torch.ones(5), torch.arange(5.0))[0] != correlation(torch.ones(5), torch.arange(5.0))[0]
