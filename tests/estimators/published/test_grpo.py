"""GRPO: its first gradient is REINFORCE's on the steps with noise, its penalty the divergence's, its ratios the published ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from rlr.chain import Chain
from rlr.estimators import (
    GRPO,
    Estimator,
    GroupStatistics,
    HalfOrder,
    LikelihoodRatio,
    NormalizedRatio,
    Penalty,
    Term,
)
from rlr.estimators.replay import Recorded
from rlr.rollout import Rollout
from rlr.samplers import CPS, DDIM, DanceSDE, FixedWindow, FlowSDE, Sampler, Windowed
from rlr.schedules import RectifiedFlow, Schedule
from tests.estimators import problems
from tests.estimators.problems import Affine, deviation, estimate, exact_gradients, quadratic

D, T, BATCH = 2, 6, 8


class Referenced(Affine):
    """The affine model with other weights before training."""

    @contextmanager
    def reference(self) -> Iterator[None]:
        kept = self.w.data
        self.w.data = kept + torch.tensor([0.1, -0.2, 0.3], dtype=kept.dtype)
        yield
        self.w.data = kept


def chain(sampler: Sampler | None = None, schedule: Schedule | None = None) -> Chain:
    return Chain(Referenced(schedule), sampler or DDIM(T))


def plain(**settings: object) -> GRPO:
    """GRPO whose only difference from REINFORCE are the means over dimensions and steps."""
    return GRPO(
        **{
            "num_minibatches": 1,
            "statistics": GroupStatistics(),
            "advantage_clip": None,
            "kl": 0.0,
            "skip_last": 0,
            **settings,
        }
    )


SAMPLERS = {
    "ddim": (lambda: chain(DDIM(T, 0.8)), T),
    "flow": (lambda: chain(FlowSDE(T, 0.7), RectifiedFlow()), T),
    "dance": (lambda: chain(DanceSDE(T, 0.3), RectifiedFlow()), T),
    "cps": (lambda: chain(CPS(T, 0.6), RectifiedFlow()), T - 1),
}
"""Chains, and the number of their steps with noise: the last one of CPS on a flow has none."""


class Scaled(Estimator):
    """GRPO's terms in the units of the gradient."""

    def __init__(self, inner: GRPO, factor: float) -> None:
        self.inner, self.factor = inner, factor
        self.record = inner.record  # type: ignore[method-assign]

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        for term in self.inner.terms(rollout):
            yield term.scaled(self.factor)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_first_gradient_is_reinforce_s_over_dimension_and_steps(name: str) -> None:
    policy, noisy = SAMPLERS[name][0](), SAMPLERS[name][1]
    first = estimate(plain(), policy, quadratic, BATCH, 3)
    reinforce = HalfOrder(1, skip_last=T - noisy)
    torch.testing.assert_close(
        first, estimate(reinforce, policy, quadratic, BATCH, 3) / (D * noisy), rtol=1e-10, atol=1e-13
    )


@pytest.mark.parametrize("sampler", [DDIM(T), Windowed(DDIM(T), FixedWindow(5, 4))], ids=["all", "window"])
def test_its_mean_is_the_gradient_of_the_steps_with_noise(sampler: Sampler) -> None:
    """In a window it is that of the window's steps, under the chain that has no other noise."""
    policy = chain(sampler)
    exact, count = exact_gradients(policy), len(policy.noisy_steps)
    expected = sum(exact[t - 1] for t in policy.noisy_steps)
    assert deviation(Scaled(plain(), D * count), policy, quadratic, expected, count=75, batch=512) < 4
    if count < T:
        assert deviation(Scaled(plain(), D * count), policy, quadratic, exact.sum(0), count=75, batch=512) > 10


def test_the_last_steps_are_skipped_and_the_mean_is_over_the_others() -> None:
    policy = chain()
    found = estimate(plain(skip_last=2), policy, quadratic, BATCH, 3)
    expected = estimate(HalfOrder(1, skip_last=2), policy, quadratic, BATCH, 3) / (D * (T - 2))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_the_penalty_is_the_divergence_s_over_dimension_and_steps() -> None:
    policy = chain()
    sampled = problems.rollout(plain(), policy, quadratic, BATCH)
    plainly, penalized = (estimate(plain(kl=kl), policy, quadratic, BATCH, 0) for kl in (0.0, 0.3))
    policy.zero_grad()
    for term in Penalty(0.3 / (D * T)).terms(sampled):
        term.loss.backward()
    torch.testing.assert_close(penalized - plainly, -policy.model.w.grad, rtol=1e-9, atol=1e-12)
    assert (penalized - plainly).abs().max() > 1e-3
    terms = list(plain(kl=0.3).terms(sampled))
    assert sum(term.metrics["grpo/penalty"].item() for term in terms) > 0


def published_ratio(policy: Chain, trajectory: Recorded, old: Tensor, t: int) -> Tensor:
    """exp((log p − log p₀ + (μ − μ₀)² / 2σ²) · σ) with the means over dimensions."""
    x = trajectory.states
    now, then = (
        policy.sampler.transition(w[0] * x[t] + w[1] + w[2] * policy.grid.times[t], x[t], t, policy.grid)
        for w in (policy.model.w, old)
    )
    change = Normal(now.mean, now.std).log_prob(x[t - 1]) - Normal(then.mean, then.std).log_prob(x[t - 1])
    bias = (now.mean - then.mean).square() / (2 * now.std**2)
    return ((change + bias).mean(1) * now.std).exp()


def test_the_normalized_ratio_is_the_published_one_and_has_no_bias() -> None:
    policy = SAMPLERS["flow"][0]()
    old = policy.model.w.detach().clone()
    sampled = problems.rollout(plain(), policy, quadratic, 4000)
    trajectory = sampled.trajectory
    assert isinstance(trajectory, Recorded)
    policy.model.w.data += torch.tensor([0.05, -0.04, 0.06], dtype=old.dtype)
    for t in range(T, 0, -1):
        transition = policy.replay(trajectory, t, t - 1)
        now, then = NormalizedRatio().logarithms(transition, trajectory, t)
        torch.testing.assert_close((now - then).exp(), published_ratio(policy, trajectory, old, t), rtol=1e-9, atol=0)
        change = (now - then).detach()
        assert abs(change.mean()) < 4 * change.std() / 4000**0.5
        raw = torch.sub(*LikelihoodRatio().logarithms(transition, trajectory, t)).detach()
        # the likelihood's is below 0 by half its variance times the dimension
        assert raw.mean() + D * raw.var() / 2 == pytest.approx(0, abs=6 * raw.std().item() / 4000**0.5)


def test_the_normalized_ratio_s_steps_have_the_published_weights() -> None:
    """At a ratio of 1 the gradient of a step is that of the likelihood, times σ_t and over the step's length."""
    policy = SAMPLERS["flow"][0]()
    sampled = problems.rollout(plain(), policy, quadratic, BATCH)
    found = []
    for estimator in (plain(ratio=NormalizedRatio()), plain()):
        gradients = {}
        for term in estimator.terms(sampled):
            policy.zero_grad()
            term.loss.backward()
            gradients[term.steps[0]] = policy.model.w.grad.clone()
        found.append(gradients)
    levels = policy.grid.sigmas
    for t in range(1, T + 1):
        expected = found[1][t] * policy.std(t) / (levels[t] - levels[t - 1])
        torch.testing.assert_close(found[0][t], expected, rtol=1e-9, atol=1e-13)
    assert sorted(found[0]) == list(range(1, T + 1))


def test_a_window_replays_to_the_bit_and_its_first_ratio_is_one() -> None:
    estimator = plain()
    sampled = problems.rollout(estimator, chain(Windowed(DDIM(T), FixedWindow(T, T - 1))), quadratic, BATCH)
    assert torch.equal(sampled.replay_sample(T), sampled.trajectory.states[0])
    list(estimator.terms(sampled))
    assert estimator.metrics() == {"grpo/approx_kl": 0.0, "grpo/clip_fraction": 0.0, "grpo/ratio_first": 1.0}


REFUSED = [
    (lambda: GRPO(kl=-1), "kl >= 0"),
    (lambda: GRPO().check(Chain(Affine(), DDIM(T))), "needs a base model"),
    (lambda: GRPO().check(chain(DDIM(T, 0.0))), "set DDIM's eta"),
    (lambda: GRPO().check(chain(Windowed(DDIM(T), FixedWindow(7, 6)))), "set first lower"),
    (lambda: GRPO(skip_last=3, kl=0.0).check(chain(Windowed(DDIM(T), FixedWindow(3, 1)))), "before the last 3"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_impossible_settings_are_refused(case: int) -> None:
    action, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        action()
