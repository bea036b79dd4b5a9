"""AlignProp, DRaFT-LV, ReFL: what they draw has the published law, and what they differentiate is what they say."""

from collections import Counter
from itertools import product

import pytest
import torch
from scipy import stats
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators import (
    DDPO,
    AlignProp,
    AllSteps,
    DRaFTLV,
    Estimator,
    FirstOrder,
    GaussianSteps,
    ReFL,
    RoundStatistics,
)
from rlr.models.base import Condition
from rlr.rollout import Rollout, Share
from rlr.samplers import DDIM
from rlr.seeding import Stream, spawn
from tests.estimators import problems
from tests.estimators.problems import TARGET, Affine, Curved, Reward, estimate, linear_chain, quadratic, wavy

T, BATCH = 6, 5
RARE = 1e-4
"""A law whose draws would be rarer than this is taken to be another."""


def rollout(chain: Chain, seed: int = 0, reward: Reward = quadratic) -> Rollout:
    return problems.rollout(FirstOrder(), chain, reward, BATCH, seed)


def reseeded(rollout: Rollout, seed: int) -> Rollout:
    """Returns the same samples, for which an estimator draws anew."""
    return Rollout(rollout.chain, rollout.trajectory, rollout.objective, rollout.prompts, seed)


def gradient(estimator: Estimator, rollout: Rollout) -> Tensor:
    rollout.chain.zero_grad()
    for term in estimator.terms(rollout):
        term.loss.backward()
    return -torch.cat([p.grad.flatten() for p in rollout.chain.model.trainable.values()])


# --- AlignProp -------------------------------------------------------------------------------------------------------


def published(steps: int, low: int, high: int) -> dict[tuple[int, ...], float]:
    """The probability of every set of kept steps, from the code's rule: in iteration i detach if i < randint."""
    found: dict[tuple[int, ...], float] = Counter()
    for drawn in product(range(low, high + 1), repeat=steps):
        found[tuple(steps - i for i, r in enumerate(drawn) if not i < r)] += 1
    del found[()]
    total = sum(found.values())
    return {kept: count / total for kept, count in found.items()}


@pytest.mark.parametrize(("steps", "low", "high"), [(3, 0, None), (4, 1, 3), (4, 2, 5)])
def test_sets_of_kept_steps_are_as_likely_as_published(steps: int, low: int, high: int | None) -> None:
    law = published(steps, low, steps if high is None else high)
    estimator, n = AlignProp(low, high), 2000
    seen = Counter(tuple(estimator.kept(steps, seed)) for seed in range(n))
    assert set(seen) <= set(law)
    observed, expected = zip(*((seen[kept], n * p) for kept, p in law.items()), strict=True)
    assert stats.chisquare(observed, expected).pvalue > RARE


def test_of_50_steps_each_is_kept_as_often_as_published() -> None:
    """Step i = 50 − t with probability (i + 1) / 51, independently: 25 of them on average."""
    n = 2000
    kept = torch.zeros(n, 50)
    for seed in range(n):
        kept[seed, [50 - t for t in AlignProp().kept(50, seed)]] = 1
    p = torch.arange(1, 51) / 51
    z = (kept.mean(0) - p) / (p * (1 - p) / n).sqrt()
    assert stats.chi2.sf(z.square().sum().item(), 50) > RARE
    # independent: the number kept has the variance of a sum of independent ones
    assert kept.sum(1).mean().item() == pytest.approx(25, abs=4 * (p * (1 - p)).sum().item() ** 0.5 / n**0.5)
    assert kept.sum(1).var().item() == pytest.approx((p * (1 - p)).sum().item(), rel=4 * (2 / n) ** 0.5)


def test_one_depth_for_the_chain_is_stated_apart() -> None:
    """The paper's prose draws one K; its sets of kept steps are other ones."""
    n, law = 4000, published(3, 0, 3)
    seen = Counter(tuple(range(1 + seed % 3, 0, -1)) for seed in range(n))
    observed, expected = zip(*((seen[kept], n * p) for kept, p in law.items()), strict=True)
    assert stats.chisquare(observed, expected).pvalue < 1e-20


def by_hand(rollout: Rollout, kept: list[int]) -> Tensor:
    """The published loop: DDIM in terms of the predicted noise, which is detached in the steps not kept."""
    chain, trajectory = rollout.chain, rollout.trajectory
    w = chain.model.w.detach().clone().requires_grad_()
    x, grid = trajectory.states[chain.steps], chain.grid
    for t in range(chain.steps, 0, -1):
        a, s, b, q = grid.alphas[t], grid.sigmas[t], grid.alphas[t - 1], grid.sigmas[t - 1]
        noise = (x - a * (w[0] * x + w[1] + w[2] * grid.times[t])) / s
        noise = noise if t in kept else noise.detach()
        std = chain.std(t)
        x = b * (x - s * noise) / a + (q**2 - std**2) ** 0.5 * noise + std * trajectory.noises[t - 1]
    return torch.autograd.grad(quadratic(x).mean(), w)[0]


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_its_gradient_is_that_of_the_published_loop(eta: float) -> None:
    chain = linear_chain(T, DDIM(T, eta))
    model = chain.model
    # the network of the published loop predicts the noise
    model.skip = lambda time: 1 / model.schedule(model.size).levels(time)[0]
    seen = set()
    for seed in range(12):
        sampled = rollout(chain, seed)
        kept = AlignProp().kept(T, sampled.seed)
        seen.add(tuple(kept))
        found = gradient(AlignProp(), sampled)
        torch.testing.assert_close(found, by_hand(sampled, kept), rtol=1e-9, atol=1e-12)
        # to detach x̂₀ instead of the noise is another thing
        assert len(kept) == kept[0] or not torch.allclose(found, detached_estimate(sampled, kept), rtol=1e-3)
    assert len(seen) > 8


def detached_estimate(rollout: Rollout, kept: list[int]) -> Tensor:
    """Sabotage: the prediction of the clean sample is detached, not that of the noise."""
    chain, trajectory = rollout.chain, rollout.trajectory
    w = chain.model.w.detach().clone().requires_grad_()
    x = trajectory.states[chain.steps]
    for t in range(chain.steps, 0, -1):
        denoised = w[0] * x + w[1] + w[2] * chain.grid.times[t]
        denoised = denoised if t in kept else denoised.detach()
        x = chain.sampler.transition(denoised, x, t, chain.grid).sample(trajectory.noises[t - 1])
    return torch.autograd.grad(quadratic(x).mean(), w)[0]


@pytest.mark.parametrize("checkpoint", [False, True])
def test_stop_grad_steps_replay_to_the_bit_and_call_the_model_without_a_graph(checkpoint: bool) -> None:
    chain, graphs = Chain(Curved(), DDIM(T), checkpoint), []

    class Watching(Curved):
        def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
            graphs.append(torch.is_grad_enabled())
            return super().denoise(x, time, condition)

    trajectory = rollout(chain).trajectory
    watched = Chain(Watching(), DDIM(T), checkpoint)
    x = watched.replay(trajectory, T, 0, stop_grad_steps={2, 4, 5}).sample(trajectory.noises[0])
    assert torch.equal(x, trajectory.states[0])
    assert graphs == [True, False, False, True, False, True]
    x.sum().backward()
    assert watched.model.out.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    "estimator", [AlignProp(), DDPO(1, statistics=RoundStatistics())], ids=lambda one: type(one).__name__
)
def test_recomputed_steps_have_the_same_gradient(estimator) -> None:  # type: ignore[no-untyped-def]
    """Also next to steps without gradient."""
    without = 0
    for seed in range(10):
        found = []
        for checkpoint in (False, True):
            chain, passes = Chain(Curved(), DDIM(T), checkpoint), []
            denoise = chain.model.denoise
            chain.model.denoise = lambda *x, denoise=denoise, passes=passes: passes.append(0) or denoise(*x)
            found.append((estimate(estimator, chain, wavy, BATCH, seed), len(passes)))
        (one, few), (other, many) = found
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)
        assert one.abs().max() > 1e-6
        assert many > few
        kept = AlignProp().kept(T, seed)
        without += kept[0] - len(kept)
    assert without > 5


def test_with_all_steps_kept_it_is_full_backpropagation() -> None:
    chain = Chain(Curved(), DDIM(T))
    sampled = rollout(chain, reward=wavy)
    found = gradient(AlignProp(0, 0, weight=0.5), sampled)
    assert torch.equal(found, 0.5 * gradient(FirstOrder(AllSteps()), sampled))


def test_a_depth_drawn_from_a_normal_is_as_likely_as_published() -> None:
    """50 − ⌊N(42, 5²)⌋, drawn again outside of [1, 50)."""
    n = 4000
    seen = Counter(
        GaussianSteps().draw(50, torch.Generator().manual_seed(spawn(seed, Stream.DEPTH))) for seed in range(n)
    )
    cdf = stats.norm(42, 5).cdf
    total = cdf(50) - cdf(1)
    law = {50 - cut: (cdf(cut + 1) - cdf(cut)) / total for cut in range(1, 50)}
    assert set(seen) <= set(law)
    common = [depth for depth, p in law.items() if n * p >= 5]
    observed = [*(seen[d] for d in common), sum(seen[d] for d in law if d not in common)]
    expected = [*(n * law[d] for d in common), n * sum(p for d, p in law.items() if d not in common)]
    assert stats.chisquare(observed, expected).pvalue > RARE


def test_draws_are_in_the_chain_however_short() -> None:
    assert {GaussianSteps().draw(3, torch.Generator().manual_seed(seed)) for seed in range(50)} == {1, 2}
    assert GaussianSteps().draw(1, torch.Generator().manual_seed(0)) == 1


# --- DRaFT-LV --------------------------------------------------------------------------------------------------------


def test_it_is_the_mean_over_its_noises() -> None:
    """Against the gradient of each scored latent by itself, its noise read off from what the model was asked."""
    asked: list[Tensor] = []

    class Watching(Affine):
        def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
            asked.append(x.detach().clone())
            return super().denoise(x, time, condition)

    chain = Chain(Watching(), DDIM(T))
    sampled = rollout(chain)
    trajectory = sampled.trajectory
    asked.clear()
    found = gradient(DRaFTLV(noises=3, weight=2.0), sampled)
    assert len(asked) == 4
    assert torch.equal(asked[0], trajectory.states[1])
    noised = asked[1:]
    noises = [(x - chain.grid.alphas[1] * trajectory.states[0]) / chain.grid.sigmas[1] for x in noised]
    assert len({noise.sum().item() for noise in noises}) == 3
    parts = [gradient(FirstOrder(1), sampled)]
    for x in noised:
        w = chain.model.w.detach().clone().requires_grad_()
        denoised = w[0] * x + w[1] + w[2] * chain.grid.times[1]
        parts.append(torch.autograd.grad(quadratic(denoised).mean(), w)[0])
    torch.testing.assert_close(found, 2.0 * torch.stack(parts).mean(0), rtol=1e-12, atol=1e-14)


def test_it_is_unbiased_for_its_objective() -> None:
    """E over ε of ∇R(x̂₀(α₁ x₀ + σ₁ ε)) is closed for an affine model and a quadratic reward."""
    chain = linear_chain(T)
    sampled = rollout(chain)
    trajectory = sampled.trajectory
    own = gradient(FirstOrder(1), sampled)
    w, time = chain.model.w.detach(), chain.grid.times[1]
    mean, variance = chain.grid.alphas[1] * trajectory.states[0], chain.grid.sigmas[1] ** 2
    error = w[0] * mean + w[1] + w[2] * time - TARGET
    slopes = [(error * mean + w[0] * variance).sum(1), error.sum(1), time * error.sum(1)]
    expected = (own + 2 * torch.stack([-2 * slope.mean() for slope in slopes])) / 3

    def draw(seed: int) -> Tensor:
        return gradient(DRaFTLV(noises=2), reseeded(sampled, seed))

    draws = torch.stack([draw(seed) for seed in range(300)])
    deviations = (draws.mean(0) - expected).abs() / (draws.std(0) / 300**0.5)
    assert deviations.max() < 4
    # a fault of the size of the noise's own part would be seen
    blind = (own + 2 * torch.stack([-2 * (error * mean).sum(1).mean(), *(-2 * s.mean() for s in slopes[1:])])) / 3
    assert ((draws.mean(0) - blind).abs() / (draws.std(0) / 300**0.5)).max() > 10


def test_more_noises_are_quieter() -> None:
    sampled = rollout(linear_chain(T))

    def spread(noises: int) -> float:
        draws = torch.stack([gradient(DRaFTLV(noises), reseeded(sampled, seed)) for seed in range(60)])
        # of the part that the noises make
        return draws.var(0).sum().item() * ((noises + 1) / noises) ** 2

    assert spread(8) < 0.25 * spread(1)


def test_ranks_draw_other_noises() -> None:
    """For the same samples and the same seed; a rank that draws for itself alone would draw the same."""
    sampled = rollout(linear_chain(T))
    n, noised = len(sampled), []
    for number in (0, 1, 0):
        sampled.share = Share(number * n + torch.arange(n), 2 * n)
        noised.append(DRaFTLV()._noised(sampled, 0))
    assert torch.equal(noised[0], noised[2])
    assert ((noised[0] - noised[1]).abs() > 1e-6).all()


# --- ReFL ------------------------------------------------------------------------------------------------------------


def test_refl_is_autograd_of_the_reward_of_the_prediction_at_the_drawn_step() -> None:
    chain = linear_chain(T)
    drawn = set()
    for seed in range(20):
        sampled = rollout(chain, seed)
        trajectory = sampled.trajectory
        t = ReFL(window=4).step(sampled)
        drawn.add(t)
        w = chain.model.w.detach().clone().requires_grad_()
        denoised = w[0] * trajectory.states[t] + w[1] + w[2] * chain.grid.times[t]
        expected = torch.autograd.grad(quadratic(denoised).mean(), w)[0]
        torch.testing.assert_close(gradient(ReFL(window=4), sampled), expected, rtol=1e-12, atol=1e-14)
        (term,) = ReFL(window=4).terms(sampled)
        assert term.steps == (t,)
        torch.testing.assert_close(sampled.rewards, quadratic(denoised).detach())
    assert drawn == {1, 2, 3, 4}


def test_its_step_is_uniform() -> None:
    sampled = rollout(linear_chain(T))
    seen = Counter(ReFL().step(reseeded(sampled, seed)) for seed in range(3000))
    assert sorted(seen) == list(range(1, 11))
    assert stats.chisquare(list(seen.values())).pvalue > RARE


def test_above_the_ceiling_there_is_no_gradient() -> None:
    chain = linear_chain(T)
    sampled = rollout(chain)
    t = ReFL(3).step(sampled)
    denoised = sampled.predict(t)
    rewards = quadratic(denoised).detach()
    ceiling = rewards.median().item()
    (expected,) = torch.autograd.grad(quadratic(denoised)[rewards < ceiling].sum() / BATCH, chain.model.w)
    # the published form, relu(c − R), of the median itself is at its kink
    found = gradient(ReFL(3, ceiling=ceiling - 1e-9, weight=2.0), sampled)
    torch.testing.assert_close(found, 2 * expected, rtol=1e-10, atol=1e-12)


REFUSED = [
    (lambda: AlignProp(3, 2), "0 <= low <= high"),
    (lambda: AlignProp(T).check(linear_chain(T)), "set low to 5 at most"),
    (lambda: DRaFTLV(0), "at least one noise"),
    (lambda: ReFL(0), "window of at least one"),
    (lambda: ReFL(7).check(linear_chain(T)), "longer than the chain of 6 steps"),
    (lambda: GaussianSteps(0), "mean > 0"),
    (lambda: GaussianSteps(90, 2).draw(50, torch.Generator()), "lower its mean"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_impossible_settings_are_refused(case: int) -> None:
    action, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        action()


def test_they_need_a_reward_with_a_gradient_and_no_noise() -> None:
    chain = linear_chain(T, DDIM(T, 0.0))
    for estimator in (AlignProp(), DRaFTLV(), ReFL(3), FirstOrder(GaussianSteps(2, 1))):
        assert estimator.differentiable
        estimator.check(chain)
        assert estimate(estimator, chain, quadratic, 4, 0).abs().max() > 0
