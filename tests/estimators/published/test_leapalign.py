"""LeapAlign: the values are those of the rollout, the gradient is Equation 10's, and full backpropagation where they agree."""

from collections import Counter

import pytest
import torch
from scipy import stats
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators import AllSteps, Estimator, FirstOrder, LeapAlign, SampleClip
from rlr.models.prediction import flow, noise, velocity
from rlr.rollout import Rollout, unconditional
from rlr.samplers import DDIM, FlowSDE
from rlr.schedules import RectifiedFlow
from tests.estimators import problems
from tests.estimators.problems import Predicting, wavy

T, BATCH, EVEN = 6, 5, 1e6
"""With so large a floor all weights are 1 / (2 · EVEN)."""

CHAINS = {
    "flow": lambda: Chain(Predicting(flow, RectifiedFlow()), FlowSDE(T, 0.7)),
    "flow without noise": lambda: Chain(Predicting(flow, RectifiedFlow()), DDIM(T, 0.0)),
    "noise": lambda: Chain(Predicting(noise), DDIM(T, 1.0)),
    "velocity": lambda: Chain(Predicting(velocity), DDIM(T, 0.5)),
}


def rollout(chain: Chain, seed: int = 0) -> Rollout:
    return problems.rollout(LeapAlign(), chain, wavy, BATCH, seed)


def gradient(estimator: Estimator, rollout: Rollout) -> Tensor:
    rollout.chain.zero_grad()
    for term in estimator.terms(rollout):
        term.loss.backward()
    return -torch.cat([p.grad.flatten() for p in rollout.chain.model.trainable.values()])


def flat(output: Tensor, weights: list[Tensor], cotangent: Tensor) -> Tensor:
    """Returns the product of the cotangent with the derivative of the output in the weights."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(output, weights, cotangent)])


def equation_10(rollout: Rollout, k: int, j: int, discount: float, floor: float) -> Tensor:
    """The three gradients of the paper's Equation 10, each by itself, times the reward's slope and the weights."""
    chain, states = rollout.chain, rollout.trajectory.states
    model, levels, times = chain.model, chain.grid.sigmas, chain.grid.times
    weights = list(model.trainable.values())
    x_k, x_j, x_0 = states[k], states[j].clone().requires_grad_(), states[0].clone().requires_grad_()
    v_k, v_j = model.output(x_k, times[k]), model.output(x_j, times[j])
    far = (x_k - (levels[k] - levels[j]) * v_k - x_j).abs().mean(1).clamp(min=floor)
    near = (x_j - levels[j] * v_j - x_0).abs().mean(1).clamp(min=floor)
    (slope,) = torch.autograd.grad((wavy(x_0) / (far + near).detach()).mean(), x_0)
    (through,) = torch.autograd.grad(v_j, x_j, slope, retain_graph=True)
    at_j = -levels[j] * flat(v_j, weights, slope)
    step = levels[k] - levels[j]
    return at_j + flat(v_k, weights, -step * slope + discount * levels[j] * step * through)


@pytest.mark.parametrize("name", ["flow", "flow without noise"])
def test_its_gradient_is_equation_10(name: str) -> None:
    chain, seen = CHAINS[name](), set()
    for seed in range(12):
        sampled = rollout(chain, seed)
        k, j = LeapAlign().draw(sampled)
        seen.add((k, j))
        found = gradient(LeapAlign(0.3, floor=0.4), sampled)
        torch.testing.assert_close(found, equation_10(sampled, k, j, 0.3, 0.4), rtol=1e-9, atol=1e-12)
        # without the discount, and without the nested gradient, it is another thing
        for other in (1.0, 0.0):
            assert not torch.allclose(found, equation_10(sampled, k, j, other, 0.4), rtol=1e-3)
    assert len(seen) > 6


def by_hand(rollout: Rollout, k: int, j: int, discount: float, clean: bool = False) -> Tensor:
    """The paper's loop with DDIM's leaps in terms of the predicted noise; the network's own input is discounted."""
    chain, states, grid = rollout.chain, rollout.trajectory.states, rollout.chain.grid

    def leap(x: Tensor, inside: Tensor, t: int, s: int) -> Tensor:
        a, q = grid.alphas[t], grid.sigmas[t]
        output = chain.model.output(inside, grid.times[t])
        estimate = chain.model.prediction(output, inside if clean else x, a, q)
        return grid.alphas[s] * estimate + grid.sigmas[s] * (x - a * estimate) / q

    x_j = leap(states[k], states[k], k, j)
    x_j = x_j + (states[j] - x_j).detach()
    x_0 = leap(x_j, discount * x_j + (1 - discount) * x_j.detach(), j, 0)
    x_0 = x_0 + (states[0] - x_0).detach()
    weights = list(chain.model.trainable.values())
    return torch.cat([g.flatten() for g in torch.autograd.grad(wavy(x_0).mean() / (2 * EVEN), weights)])


@pytest.mark.parametrize("name", CHAINS)
def test_the_network_s_input_is_discounted_whatever_it_predicts(name: str) -> None:
    chain = CHAINS[name]()
    for seed in range(6):
        sampled = rollout(chain, seed)
        k, j = LeapAlign().draw(sampled)
        found = gradient(LeapAlign(0.3, floor=EVEN), sampled)
        expected = by_hand(sampled, k, j, 0.3)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9 * expected.abs().max().item())
        # to discount the whole estimate, and not the network's input alone, is another thing
        assert not torch.allclose(found, by_hand(sampled, k, j, 0.3, clean=True), rtol=1e-3)


@pytest.mark.parametrize("name", CHAINS)
def test_the_sample_that_is_scored_is_the_rollout_s_to_the_bit(name: str) -> None:
    chain, scored = CHAINS[name](), []
    for seed in range(4):
        sampled = rollout(chain, seed)

        def reward(x: Tensor) -> Tensor:
            scored.append(x.detach().clone())
            return wavy(x)

        watched = Rollout(chain, sampled.trajectory, unconditional(reward), sampled.prompts, seed)
        scored.clear()
        assert gradient(LeapAlign(), watched).abs().max() > 0
        (x,) = scored
        assert torch.equal(x, sampled.trajectory.states[0])
        assert torch.equal(watched.rewards, wavy(x))


@pytest.mark.parametrize("prediction", [flow, noise, velocity])
def test_on_two_steps_without_noise_and_discount_it_is_full_backpropagation(prediction) -> None:  # type: ignore[no-untyped-def]
    chain = Chain(Predicting(prediction, RectifiedFlow() if prediction is flow else None), DDIM(2, 0.0))
    sampled = rollout(chain)
    expected = gradient(FirstOrder(AllSteps()), sampled)
    found = gradient(LeapAlign(1.0, floor=EVEN, weight=2 * EVEN), sampled)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)
    discounted = gradient(LeapAlign(0.3, floor=EVEN, weight=2 * EVEN), sampled)
    assert not torch.allclose(discounted, expected, rtol=1e-2)


def test_closer_leaps_weigh_more_and_the_ceiling_cuts_off() -> None:
    chain = CHAINS["flow"]()
    sampled = rollout(chain)
    (term,) = LeapAlign(floor=1e-9).terms(sampled)
    assert term.steps == LeapAlign().draw(sampled)
    assert term.metrics["leapalign/similarity"] > 0
    (even,) = LeapAlign(floor=EVEN).terms(sampled)
    assert even.metrics["leapalign/similarity"].item() == pytest.approx(1 / (2 * EVEN))
    assert gradient(LeapAlign(ceiling=sampled.rewards.min().item() - 1e-6), sampled).abs().max() == 0
    above = gradient(LeapAlign(ceiling=sampled.rewards.max().item() + 1e-6), sampled)
    assert torch.equal(above, gradient(LeapAlign(), sampled))


@pytest.mark.parametrize("ceiling", [None, 0.3])
def test_a_clip_shortens_the_slopes_of_the_steep_samples_alone(ceiling: float | None) -> None:
    """The weights of samples come after the clip, and the largest norm as its bound changes nothing."""
    sampled = rollout(CHAINS["noise"]())
    wide = gradient(LeapAlign(ceiling=ceiling, clip=SampleClip(1.0)), sampled)
    torch.testing.assert_close(wide, gradient(LeapAlign(ceiling=ceiling), sampled), rtol=1e-10, atol=1e-14)

    x = sampled.trajectory.states[0].clone().requires_grad_()
    (slopes,) = torch.autograd.grad(wavy(x).sum(), x)
    norms = slopes.norm(dim=1)
    slopes = slopes * (norms.median() / norms).clamp(max=1)[:, None]
    below = sampled.rewards <= (torch.inf if ceiling is None else ceiling)
    assert below.any()
    assert below.all() == (ceiling is None)

    def linear(x: Tensor) -> Tensor:
        return below * (slopes * x).sum(1)

    straight = Rollout(sampled.chain, sampled.trajectory, unconditional(linear), sampled.prompts, sampled.seed)
    found = gradient(LeapAlign(ceiling=ceiling, clip=SampleClip(0.5)), sampled)
    torch.testing.assert_close(found, gradient(LeapAlign(), straight), rtol=1e-10, atol=1e-14)
    assert not torch.allclose(found, wide, rtol=1e-2)


def test_the_clip_resumes() -> None:
    first, second = LeapAlign(clip=SampleClip()), LeapAlign(clip=SampleClip())
    for seed in range(3):
        gradient(first, rollout(CHAINS["flow"](), seed))
    second.load_state_dict(first.state_dict())
    sampled = rollout(CHAINS["flow"](), 3)
    assert torch.equal(gradient(first, sampled), gradient(second, sampled))
    assert LeapAlign().state_dict() == {}


def test_every_pair_of_steps_is_equally_likely() -> None:
    sampled = rollout(CHAINS["flow"]())
    seen: Counter[tuple[int, int]] = Counter()
    for seed in range(3000):
        seen[
            LeapAlign().draw(Rollout(sampled.chain, sampled.trajectory, sampled.objective, sampled.prompts, seed))
        ] += 1
    assert set(seen) == {(k, j) for k in range(1, T + 1) for j in range(1, k)}
    assert stats.chisquare(list(seen.values())).pvalue > 1e-4


def test_recomputed_steps_have_the_same_gradient() -> None:
    found = []
    for checkpoint in (False, True):
        chain = CHAINS["noise"]()
        sampled = rollout(Chain(chain.model, chain.sampler, checkpoint))
        found.append(gradient(LeapAlign(), sampled))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-15)


def test_impossible_settings_are_refused() -> None:
    for wrong in ({"discount": 1.1}, {"floor": 0.0}):
        with pytest.raises(ValueError, match="needs discount in"):
            LeapAlign(**wrong)
    with pytest.raises(ValueError, match="set the sampler's steps to 2 or more"):
        LeapAlign().check(problems.linear_chain(1))
