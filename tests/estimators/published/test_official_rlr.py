"""The released code's formula on a toy case, computed a second time from its description; the presets are what they say."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor
from torch.distributions import Normal

import rlr.estimators
from rlr.chain import Chain
from rlr.estimators import RLR, FirstOrder, HalfOrderRLR, ImportanceRatio, OfficialRLR, ZerothOrder
from rlr.estimators.base import Estimator
from rlr.models.base import Condition
from rlr.rewards import Brightness, DoubledRange
from rlr.rollout import Rollout, unconditional
from rlr.samplers import DDIM
from rlr.schedules import DiscreteSchedule
from tests.estimators.problems import (
    Affine,
    Cosine,
    Curved,
    Plane,
    deviation,
    estimate,
    exact_gradients,
    linear_chain,
    quadratic,
    rollout,
)

T, BATCH = 4, 3
PARTS = Path(__file__).parents[3] / "configs" / "image" / "parts"


def linear_reward(x: Tensor) -> Tensor:
    """R = x₁ + 2 x₂."""
    return x[:, 0] + 2 * x[:, 1]


def by_hand(rollout: Rollout, steps: list[int], first: float, half: float) -> Tensor:
    """The gradient of w₁ · mean(R(α₀ x̂₀ + σ₀ ẑ)) + w_h Σ mean(A · mean_D log N), the ratio being 1."""
    chain = rollout.chain
    w = chain.model.w.detach().clone().requires_grad_()
    x, grid = rollout.trajectory.states, chain.grid

    def mean(t: int, std: float) -> Tensor:
        a, s, b, q = grid.alphas[t], grid.sigmas[t], grid.alphas[t - 1], grid.sigmas[t - 1]
        denoised = w[0] * x[t] + w[1] + w[2] * grid.times[t]
        return b * denoised + (q**2 - std**2) ** 0.5 * (x[t] - a * denoised) / s

    rewards = linear_reward(mean(1, 0.0))
    r = rewards.detach()
    advantages = (r - r.mean()) / (((r - r.mean()) ** 2).mean() ** 0.5 + 1e-8)
    value = first * rewards.mean()
    for t in steps:
        if t > 1:
            step = Normal(mean(t, chain.std(t)), chain.std(t))
            value = value + half * (advantages * step.log_prob(x[t - 1]).mean(1)).mean()
    return torch.autograd.grad(value, w)[0]


@pytest.mark.parametrize(("draws", "first", "half"), [(1, 0.05, 1.0), (2, 0.05, 0.001), (5, 0.3, 2.0), (0, 0.05, 1.0)])
def test_its_gradient_is_the_formula_s(draws: int, first: float, half: float) -> None:
    chain, seen = linear_chain(T), set()
    estimator = OfficialRLR(draws, first, half)
    for seed in range(10):
        sampled = rollout(estimator, chain, linear_reward, BATCH, seed)
        steps = estimator.steps(sampled)
        seen.update(steps)
        chain.zero_grad()
        terms = []
        for term in estimator.terms(sampled):
            terms.append(term.steps)
            term.loss.backward()
        expected = by_hand(sampled, steps, first, half)
        torch.testing.assert_close(-chain.model.w.grad, expected, rtol=1e-10, atol=1e-13)
        # a draw of the deterministic last step is no term
        assert terms == [(1,), *((t,) for t in steps if t > 1)]
    assert seen <= set(range(1, T + 1))
    assert len(seen) > 2 or draws < 2


def test_a_number_worked_out_with_pencil() -> None:
    """One dimension would do: at w = 0 every mean is linear in w, and the first-order part is α₀ − σ₀ α₁ / σ₁ a step."""
    chain = linear_chain(1)
    chain.model.w.data.zero_()
    estimator = OfficialRLR(draws=0)
    noises = torch.ones((2, 1, 2), dtype=torch.float64)
    (term,) = estimator.terms(estimator.rollout(chain, ["x"], noises, unconditional(linear_reward)))
    term.loss.backward()
    a, s, b, q = chain.grid.alphas[1], chain.grid.sigmas[1], chain.grid.alphas[0], chain.grid.sigmas[0]
    slope = b - q * a / s
    # R = x₁ + 2 x₂, so each weight's slope counts three times; x = 1, τ = 1
    assert (-chain.model.w.grad).tolist() == pytest.approx([0.05 * 3 * slope] * 3)


class Noise(Plane):
    """Predicts the noise w in every state, on Stable Diffusion's schedule."""

    def __init__(self) -> None:
        super().__init__(DiscreteSchedule(DiscreteSchedule.scaled_linear()))
        self.w = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        alpha, sigma = self.schedule(self.size).levels(time)
        return (x - sigma * self.w) / alpha


@pytest.mark.parametrize("eta", [0.05, 1.0])
def test_the_last_step_is_without_noise_whatever_eta(eta: float) -> None:
    """Of Stable Diffusion in 50 steps, ∂x₀/∂ẑ = σ₀ − α₀ σ₁ / α₁ = −0.0122; of the mean of a step of η = 1, −0.0207."""
    chain, estimator = Chain(Noise(), DDIM(50, eta)), OfficialRLR(draws=0, first_weight=1.0)
    noises = torch.ones((51, 1, 2), dtype=torch.float64)
    sampled = estimator.rollout(chain, ["x"], noises, unconditional(lambda x: x[:, 0]))
    for one, expected in ((estimator, -0.0122), (FirstOrder(1), {0.05: -0.0122, 1.0: -0.0207}[eta])):
        chain.zero_grad()
        (term,) = one.terms(sampled)
        term.loss.backward()
        assert -chain.model.w.grad.item() == pytest.approx(expected, abs=1e-4)


def test_it_is_not_the_paper_s_estimator() -> None:
    """Its mean is far from the gradient, in scale and direction."""
    chain = linear_chain(T)
    estimator = OfficialRLR(first_weight=1.0, half_weight=1.0)
    assert deviation(estimator, chain, quadratic, exact_gradients(chain).sum(0), count=100) > 10


def test_the_last_step_may_be_deterministic_and_no_other() -> None:
    OfficialRLR().check(linear_chain(T))
    with pytest.raises(ValueError, match="OfficialRLR needs noise in step 2"):
        OfficialRLR().check(Chain(Affine(Cosine()), DDIM(T, eta=0.0)))
    with pytest.raises(ValueError, match=r"OfficialRLR\.draws: expected at least 0, got -1"):
        OfficialRLR(draws=-1)


def test_the_doubled_range_is_a_reward_of_its_own() -> None:
    pixels = torch.rand((2, 3, 4, 4), generator=torch.Generator().manual_seed(0)).requires_grad_()
    doubled = DoubledRange(Brightness())
    torch.testing.assert_close(doubled(pixels, ["a", "b"]), Brightness()(pixels, ["a", "b"]) / 2 + 0.5)
    doubled(pixels, ["a", "b"]).sum().backward()
    torch.testing.assert_close(pixels.grad, torch.full_like(pixels, 0.5 / 48))
    assert doubled.label == "Brightness_doubled"
    assert doubled.differentiable


# --- presets ---------------------------------------------------------------------------------------------------------


def preset(name: str) -> Estimator:
    """Builds an estimator from a part of a config."""

    def build(value: object) -> object:
        if isinstance(value, dict) and "class_path" in value:
            arguments = {key: build(inner) for key, inner in value.get("init_args", {}).items()}
            return getattr(rlr.estimators, value["class_path"])(**arguments)
        return value

    found = build(yaml.safe_load((PARTS / f"{name}.yaml").read_text(encoding="utf-8")))
    assert isinstance(found, Estimator)
    return found


SAME = {
    "rlr_paper": lambda: RLR(),
    "rlr_half_order": lambda: HalfOrderRLR(length=4, segments=1),
    "rlr_official": lambda: OfficialRLR(draws=2, first_weight=0.05, half_weight=0.001),
}


@pytest.mark.parametrize("name", SAME)
def test_a_preset_is_what_it_says(name: str) -> None:
    chain = Chain(Curved(), DDIM(12))
    one, other = preset(name), SAME[name]()
    one.check(chain)
    for seed in range(4):
        found = estimate(one, chain, linear_reward, 4, seed)
        assert torch.equal(found, estimate(other, chain, linear_reward, 4, seed))


def test_the_paper_s_preset_covers_the_chain_with_three_kinds_of_terms_and_full_weights() -> None:
    chain, estimator = Chain(Curved(), DDIM(12)), preset("rlr_paper")
    terms = {term.name: term.steps for term in estimator.terms(rollout(estimator, chain, linear_reward))}
    assert isinstance(estimator, RLR)
    assert (estimator.first_weight, estimator.half_weight, estimator.zeroth_weight) == (1.0, 1.0, 1.0)
    assert list(terms) == ["first_order", "half_order", "zeroth_order"]
    assert terms["first_order"] == (1,)
    assert len(terms["half_order"]) == 4
    assert sorted(t for steps in terms.values() for t in steps) == list(range(1, 13))


def test_the_ratio_s_logarithm_is_cut_off_as_in_the_released_code() -> None:
    surrogate = OfficialRLR().surrogate
    assert isinstance(surrogate, ImportanceRatio)
    assert (surrogate.clip, surrogate.limit) == (1e-4, 20.0)
    assert isinstance(RLR().zeroth, ZerothOrder)
