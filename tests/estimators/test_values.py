"""Value functions that take the place of a reward without gradient."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators import Critic, HalfOrderRLR, LookAhead, StandIn
from rlr.rewards.base import Reward
from rlr.rollout import Rollout, unconditional
from rlr.samplers import DDIM
from rlr.toy.rewards import TinyPickScore
from tests.estimators.problems import deviation, exact_gradients, linear_chain, quadratic


class Pixels(Reward):
    """The mean of the first channel."""

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples[:, 0].mean((1, 2))


@pytest.fixture(scope="module")
def chain() -> Chain:
    from rlr.toy.models.tiny import Tiny

    return Chain(Tiny(), DDIM(2, eta=1.0))


def rollout(chain: Chain, reward, seed: int = 0, n: int = 8) -> Rollout:  # type: ignore[no-untyped-def]
    prompts = ["a red circle"] * n
    sampled = chain.sample(chain.encode(prompts), chain.draw(range(seed * n, (seed + 1) * n)))
    return Rollout(chain, sampled, unconditional(reward), prompts, seed)


def brightness(chain: Chain, scale: float = 1.0):  # type: ignore[no-untyped-def]
    return lambda x: scale * chain.model.decode(x)[:, 0].mean((1, 2)).detach() + 5


def test_a_stand_in_learns_the_unit_of_the_reward_from_earlier_rollouts(chain: Chain) -> None:
    value = StandIn(Pixels())
    first = rollout(chain, brightness(chain, -20.0))
    assert torch.equal(value.of(first)(first.trajectory.states[0]), torch.zeros(8))
    value.learn(first)
    second = rollout(chain, brightness(chain, -20.0), 1)
    torch.testing.assert_close(value.of(second)(second.trajectory.states[0]), second.rewards, rtol=1e-4, atol=1e-4)


def test_a_critic_learns_to_tell_samples_apart_and_has_a_slope(chain: Chain) -> None:
    critic = Critic(TinyPickScore(), steps=60, lr=3e-3, weight_decay=0.0)
    seen = [rollout(chain, brightness(chain), seed) for seed in range(6)]
    for one in seen[:-1]:
        critic.learn(one)
    new = seen[-1]
    x = new.trajectory.states[0].clone().requires_grad_()
    c = critic.of(new)(x)
    error = (c - new.rewards).square().mean() / new.rewards.var(correction=0)
    assert error < 0.5
    (slope,) = torch.autograd.grad(c.sum(), x)
    # a step along the slope raises the reward itself, which the critic has only sampled
    step = 0.5 * slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert new.score((x + step).detach()).mean() > new.rewards.mean() > new.score((x - step).detach()).mean()


def test_a_resumed_critic_goes_on_as_the_uninterrupted_one(chain: Chain) -> None:
    whole, part = Critic(TinyPickScore()), Critic(TinyPickScore(), seed=1)
    seen = [rollout(chain, brightness(chain), seed) for seed in range(3)]
    whole.learn(seen[0])
    part.load_state_dict(whole.state_dict())
    for critic in (whole, part):
        critic.learn(seen[1])
    x = seen[2].trajectory.states[0]
    assert torch.equal(whole.of(seen[2])(x), part.of(seen[2])(x))


def test_a_reward_without_gradient_is_aligned_to_by_the_value_of_its_control_variate(chain: Chain) -> None:
    estimator = HalfOrderRLR(1, None, control=LookAhead(value=StandIn(Pixels())))
    assert not estimator.differentiable
    for seed in range(2):
        new = rollout(chain, brightness(chain), seed)
        names = []
        for term in estimator.terms(new):
            chain.zero_grad()
            term.backward()
            norm = sum(p.grad.norm() for p in chain.model.trainable.values() if p.grad is not None)
            names.append(term.name)
            # nothing is known of the reward before the first rollout
            assert norm > 0 or (seed == 0 and term.name == "first_order")
        assert names == ["first_order", "half_order"]


class Peeking(StandIn):
    """Sabotage: the value learns from a rollout before it is used on it, sample by sample."""

    def of(self, rollout: Rollout):  # type: ignore[no-untyped-def]
        rewards = rollout.rewards
        return lambda x: 0.0 * x.sum(1) + rewards

    def learn(self, rollout: Rollout) -> None:
        pass


def test_a_value_that_has_seen_the_sample_itself_biases_the_estimate() -> None:
    from rlr.estimators import ConstantCoefficients

    exact = exact_gradients(linear_chain()).sum(0)
    control = LookAhead(ConstantCoefficients((0.9,)), start_value=False, value=Peeking(Pixels()))
    estimator = HalfOrderRLR(1, None, control=control)
    assert deviation(estimator, linear_chain(), quadratic, exact, 50, 1024) > 10


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"lr": 0.0}, {"steps": 0}, {"batch": 0}, {"memory": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        Critic(TinyPickScore(), **wrong)  # type: ignore[arg-type]
