"""Value functions that take the place of a reward without gradient."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators import (
    RLR,
    ClipFeatures,
    Coefficients,
    ConstantCoefficients,
    Critic,
    CriticFeatures,
    Estimator,
    GroupLeaveOneOut,
    HalfOrder,
    HalfOrderRLR,
    LatentFeatures,
    LeaveOneOut,
    LeaveOneOutRegression,
    LookAhead,
    RunningMean,
    RunningRegression,
    StandIn,
    Value,
    Zero,
)
from rlr.estimators.critic_features import hashed
from rlr.rewards.base import Reward
from rlr.rollout import Rollout, unconditional
from rlr.samplers import DDIM
from rlr.toy.rewards import TinyPickScore
from tests.estimators.problems import deviation, exact_gradients, linear_chain, quadratic


class Pixels(Reward):
    """The mean of the first channel."""

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples[:, 0].mean((1, 2))


class Plain(Reward):
    """The difference of the two coordinates of a latent."""

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples[:, 0] - samples[:, 1]


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


FEATURES = {"CLIP": ClipFeatures(TinyPickScore()), "latents": LatentFeatures(channels=4, grid=4)}


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_a_critic_learns_to_tell_samples_apart_and_has_a_slope(chain: Chain, features: CriticFeatures) -> None:
    critic = Critic(features, steps=60, lr=3e-3, weight_decay=0.0)
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
    whole, part = Critic(FEATURES["CLIP"]), Critic(FEATURES["CLIP"], seed=1)
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
    """Sabotage: the value of a sample is its reward, which depends on the noise of its steps."""

    def of(self, rollout: Rollout):  # type: ignore[no-untyped-def]
        rewards = rollout.rewards
        return lambda x: 0.0 * x.sum(1) + rewards

    def learn(self, rollout: Rollout) -> None:
        pass


def test_a_value_that_has_seen_the_sample_itself_biases_the_estimate() -> None:
    exact = exact_gradients(linear_chain()).sum(0)
    control = LookAhead(ConstantCoefficients((0.9,)), start_value=False, value=Peeking(Pixels()))
    estimator = HalfOrderRLR(1, None, control=control)
    assert deviation(estimator, linear_chain(), quadratic, exact, 50, 1024) > 10


class Noted(Critic):
    """Notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__(LatentFeatures(2, grid=1, words=0))
        self.asked: list[str] = []

    def of(self, rollout: Rollout):  # type: ignore[no-untyped-def]
        self.asked.append(f"of {rollout.seed}")
        return super().of(rollout)

    def learn(self, rollout: Rollout) -> None:
        self.asked.append(f"learn {rollout.seed}")
        super().learn(rollout)


@pytest.mark.parametrize("kind", [HalfOrder, HalfOrderRLR, partial(RLR, zeroth=False)])
def test_a_value_learns_from_a_rollout_when_all_of_its_terms_are_made(kind: Callable[..., Estimator]) -> None:
    value, chain = Noted(), linear_chain()
    estimator = kind(2, control=LookAhead(value=value))
    for seed in range(2):
        new = estimator.rollout(chain, ["x"] * 8, chain.draw(range(8)).double(), unconditional(quadratic), seed)
        for term in estimator.terms(new):
            assert f"learn {seed}" not in value.asked
            term.backward()
    assert value.asked == ["of 0", "learn 0", "of 1", "learn 1"]


def test_what_a_critic_returns_for_a_rollout_does_not_change_when_it_learns_from_it(chain: Chain) -> None:
    critic = Critic(FEATURES["latents"])
    first, second = (rollout(chain, brightness(chain), seed) for seed in range(2))
    critic.learn(first)
    c, x = critic.of(second), second.trajectory.states[0]
    before = c(x)
    critic.learn(second)
    assert torch.equal(c(x), before)
    assert not torch.equal(critic.of(second)(x), before)


@pytest.mark.parametrize("coefficients", [RunningRegression(), LeaveOneOutRegression()])
@pytest.mark.parametrize("value", [StandIn(Plain()), Critic(LatentFeatures(2, grid=1))], ids=["stand-in", "critic"])
def test_a_value_that_learns_leaves_the_estimate_unbiased(value: Value, coefficients: Coefficients) -> None:
    chain = linear_chain()
    # pixels in [0, 1]; neither the chain nor the reward sees them
    chain.model.decode = lambda x, frames=None: x.sigmoid()  # type: ignore[method-assign]
    estimator = HalfOrder(2, control=LookAhead(coefficients, value=value))
    assert deviation(estimator, chain, quadratic, exact_gradients(chain).sum(0), 60, 200) < 4


def test_latents_are_averaged_over_frames_and_cells(chain: Chain) -> None:
    features = LatentFeatures(channels=4, grid=2, words=8)
    new = rollout(chain, brightness(chain), n=2)
    x = torch.arange(2 * 4 * 4 * 4, dtype=torch.float32).view(2, 4, 4, 4)
    found = features.of(new, x)
    assert found.shape == (2, features.dimension) == (2, 4 * 4 + 8)
    assert found[0, 0] == x[0, 0, :2, :2].mean()
    assert torch.equal(found, features.of(new, torch.stack([x - 1, x + 1], 2)))
    with pytest.raises(ValueError, match="expected the 4 channels of the latents of Tiny, got 16; set channels to 4"):
        LatentFeatures(16).of(new, x)


def test_hashed_words_tell_prompts_apart_and_have_the_length_1() -> None:
    one, two, again = hashed(["a red circle", "a blue circle", "A RED circle"], 4096)
    assert torch.equal(one, again)
    assert one.norm().item() == pytest.approx(1.0)
    # two of three words are the same
    assert (one @ two).item() == pytest.approx(2 / 3)


def test_the_explained_share_of_nothing_is_0_with_every_baseline(chain: Chain) -> None:
    """Rewards of two prompts differ by far more than those of one; a value of 0 explains neither difference."""
    for baseline in (None, GroupLeaveOneOut(4), RunningMean(), Zero()):
        control = LookAhead(ConstantCoefficients((1.0,)), start_value=False, value=Nothing())
        estimator = HalfOrder(1, baseline=baseline, control=control)
        for seed in range(2):
            new = of_two_prompts(chain, seed)
            list(estimator.terms(new))
        assert set(estimator.metrics().values()) == {0.0}


def test_the_explained_share_is_of_what_the_baseline_leaves(chain: Chain) -> None:
    """A value that knows the prompt and nothing else explains nothing within prompts, and nearly all between them."""
    shares = []
    for baseline in (LeaveOneOut(), GroupLeaveOneOut(4)):
        control = LookAhead(ConstantCoefficients((1.0,)), start_value=False, value=OfPrompt())
        estimator = HalfOrder(1, baseline=baseline, control=control)
        list(estimator.terms(of_two_prompts(chain, 0)))
        shares.append(estimator.metrics()["explained/1"])
    assert shares[0] > 0.99
    assert shares[1] == pytest.approx(0.0, abs=1e-6)


class Nothing(Value):
    """A value of 0."""

    def of(self, rollout: Rollout):  # type: ignore[no-untyped-def]
        return lambda x: 0 * x.flatten(1).sum(1)


class OfPrompt(Value):
    """A value that depends on the prompt alone."""

    def of(self, rollout: Rollout):  # type: ignore[no-untyped-def]
        far = torch.tensor([100.0 * ("blue" in prompt) for prompt in rollout.prompts])
        return lambda x: 0 * x.flatten(1).sum(1) + far


def of_two_prompts(chain: Chain, seed: int) -> Rollout:
    prompts = ["a red circle"] * 4 + ["a blue circle"] * 4
    sampled = chain.sample(chain.encode(prompts), chain.draw(range(seed * 8, seed * 8 + 8)))
    far = torch.tensor([0.0] * 4 + [100.0] * 4)
    return Rollout(chain, sampled, unconditional(lambda x: brightness(chain)(x) + far), prompts, seed)


def test_the_pathwise_half_alone_needs_one_sample_and_the_ratio_needs_two(chain: Chain) -> None:
    new = rollout(chain, lambda x: x.flatten(1).sum(1), n=1)
    path = HalfOrderRLR(1, None, control=LookAhead(ratio_weight=0.0))
    assert [term.name for term in path.terms(new)] == ["first_order", "half_order"]
    with pytest.raises(ValueError, match="a leave-one-out baseline needs two samples"):
        list(HalfOrderRLR(1, None, control=LookAhead()).terms(new))


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"lr": 0.0}, {"steps": 0}, {"batch": 0}, {"memory": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        Critic(FEATURES["latents"], **wrong)  # type: ignore[arg-type]
