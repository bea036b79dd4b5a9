r"""Laws of the samplers of rectified flows, with the exact denoiser of :math:`x_0 \sim \mathcal{N}(m, s^2)`."""

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from torch.distributions import Normal

from rlr.chain import Chain
from rlr.gaussian import Gaussian
from rlr.samplers import (
    CPS,
    DDIM,
    AllButLast,
    Ancestral,
    DanceSDE,
    FixedWindow,
    FlowSDE,
    RandomWindow,
    Sampler,
    Windowed,
)
from rlr.schedules import FlowMatch, Grid, RectifiedFlow
from tests.estimators.problems import Affine, Cosine
from tests.samplers.test_samplers import S2, M, arc, errors, identify, line, marginal, order

COUNTS = (100, 200, 400, 800)


def whole(steps: int) -> Grid:
    r"""Returns a rectified flow's grid from :math:`\sigma = 1`."""
    return RectifiedFlow().grid(steps)


def shrinking(steps: int) -> CPS:
    r"""Returns CPS whose share of fresh noise, :math:`\sin^2(\eta \pi / 2)`, is :math:`2 / T`."""
    return CPS(steps, 2 / math.pi * math.asin((2 / steps) ** 0.5))


CONVERGING: dict[str, tuple[Callable[[int], Sampler], Callable[[int], Grid]]] = {
    "DDIM, no noise": (lambda n: DDIM(n, 0.0), whole),
    "Ancestral, smallest variance": (lambda n: Ancestral(n, 0.0), arc),
    "Ancestral, between": (lambda n: Ancestral(n, 0.5), arc),
    "Ancestral, largest variance": (lambda n: Ancestral(n, 1.0), arc),
    "FlowSDE": (lambda n: FlowSDE(n, 0.7), line),
    "DanceSDE, no noise": (lambda n: DanceSDE(n, 0.0), whole),
    "DanceSDE, as published": (lambda n: DanceSDE(n, 0.3), whole),
    "DanceSDE, much noise": (lambda n: DanceSDE(n, 0.7), whole),
    "CPS, noise that shrinks with the steps": (shrinking, whole),
    "CPS on a variance-preserving schedule": (shrinking, arc),
    "FlowSDE in half of the steps": (lambda n: Windowed(FlowSDE(n, 0.7), FixedWindow(3 * n // 4, n // 4)), line),
    "FlowSDE in three steps": (lambda n: Windowed(FlowSDE(n, 0.7), RandomWindow(3)), line),
    "DanceSDE, the last step deterministic": (lambda n: Windowed(DanceSDE(n, 0.3), AllButLast()), whole),
}


@pytest.mark.parametrize("name", CONVERGING)
def test_the_variance_converges_to_the_marginal_with_order_one(name: str) -> None:
    sampler, grid = CONVERGING[name]
    assert max(abs(mean) for mean, _ in errors(sampler(50), grid(50))) < 1e-12
    slopes = order(sampler, grid, COUNTS)
    assert slopes == pytest.approx([1, 1, 1], abs=0.15)
    assert slopes[-1] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("noise_level", [0.5, 0.8, 1.0])
def test_the_variance_of_cps_at_a_fixed_level_is_too_small_by_a_known_share(noise_level: float) -> None:
    r"""Each step replaces noise that the estimate cannot tell from data: :math:`s^2 (1 - \cos(\eta \pi / 2)) / 2` is lost.

    A deficit of :math:`\alpha^2 (1 - c)^2 \mathrm{Var}(x_0 \mid x_t)` arises in each step, and a share
    :math:`2 (1 - c) \sigma^2 / s^2` of it decays in the next.
    """
    found = [errors(CPS(n, noise_level), whole(n))[-1][1] for n in (1600, 6400)]
    expected = -S2 * (1 - math.cos(noise_level * math.pi / 2)) / 2
    assert found[1] == pytest.approx(expected, rel=0.02)
    assert abs(found[1] - expected) < abs(found[0] - expected)


@pytest.mark.parametrize("sampler", [FlowSDE(20, 0.7), DanceSDE(20, 0.3)], ids=identify)
def test_the_drift_is_the_velocity_and_the_score_of_the_marginal(sampler: Sampler) -> None:
    r"""With the diffusion :math:`g`: :math:`x - (v - \frac{g^2}{2} \nabla \log p_t(x)) \Delta`, the score by autograd."""
    grid = line(20)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None].requires_grad_()
    for t in range(20, 0, -1):
        mean, variance = (torch.tensor(value, dtype=torch.float64) for value in marginal(t, grid, S2))
        sigma, delta = grid.sigmas[t], grid.sigmas[t] - grid.sigmas[t - 1]
        denoised = M + grid.alphas[t] * S2 / variance * (x - mean)
        (score,) = torch.autograd.grad(Normal(mean, variance**0.5).log_prob(x).sum(), x)
        g2 = sampler.std(t, grid) ** 2 / delta
        expected = x - ((x - denoised) / sigma - g2 / 2 * score) * delta
        torch.testing.assert_close(sampler.transition(denoised, x, t, grid).mean, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", [FlowSDE, DanceSDE, CPS])
def test_without_noise_all_are_euler_s_method(make: Callable[..., Sampler]) -> None:
    denoised, x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid = RectifiedFlow(shift=3.0).grid(10)
    for t in range(10, 0, -1):
        transition = make(10, 0.0).transition(denoised, x, t, grid)
        euler = x - (x - denoised) / grid.sigmas[t] * (grid.sigmas[t] - grid.sigmas[t - 1])
        assert transition.std == 0
        torch.testing.assert_close(transition.mean, euler, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("stochastic", [False, True])
def test_cps_is_diffusers_sampler_of_flows_at_both_ends(stochastic: bool) -> None:
    """Level 0 is its Euler step, level 1 its stochastic sampling, which distilled models use."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=stochastic)
    scheduler.set_timesteps(4)
    grid = FlowMatch(3.0).grid(4)
    x = y = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    for t, time in zip(range(4, 0, -1), scheduler.timesteps, strict=True):
        velocity = torch.sin(3 * x + t)
        torch.manual_seed(t)
        noise = torch.randn_like(x)
        x = CPS(4, float(stochastic)).transition(x - grid.sigmas[t] * velocity, x, t, grid).sample(noise)
        torch.manual_seed(t)
        y = scheduler.step(torch.sin(3 * y + t), time, y).prev_sample
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


RECORDED = [
    (DDIM(5, 0.8), Cosine()),
    (Ancestral(5, 0.5), Cosine()),
    (FlowSDE(5, 0.7), RectifiedFlow()),
    (DanceSDE(5, 0.3), RectifiedFlow()),
    (CPS(5, 0.8), RectifiedFlow()),
    (Windowed(CPS(5, 0.8), FixedWindow(4, 2)), RectifiedFlow()),
]


@pytest.mark.parametrize(("sampler", "schedule"), RECORDED, ids=[identify(s) for s, _ in RECORDED])
def test_the_density_is_that_of_the_recorded_noise(sampler: Sampler, schedule: Cosine | RectifiedFlow) -> None:
    r"""Of each recorded step: :math:`\log p(x_{t-1} \mid x_t)` is the normal density of :math:`z` over :math:`\sigma^D`."""
    policy = Chain(Affine(schedule), sampler)
    noises = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    densities: dict[int, tuple[Tensor, Tensor]] = {}

    def observe(t: int, transition: Gaussian, x: Tensor) -> None:
        if transition.std > 0:
            expected = Normal(0.0, 1.0).log_prob(noises[t - 1]).sum(1) - 2 * math.log(transition.std)
            densities[t] = transition.log_prob(x), expected

    policy.sample(policy.encode(["x"] * 3), noises, observe=observe)
    assert sorted(densities) == policy.noisy_steps
    for found, expected in densities.values():
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_dance_noise_above_the_level_of_a_step_stays_in_data_without_spread() -> None:
    r"""Where :math:`\eta \sqrt \Delta > \sigma_t` a step adds more noise than the schedule has; a deterministic end helps."""
    excess = [errors(DanceSDE(n, 0.3), whole(n), s2=0.0)[-1][1] for n in (10, 20)]
    ended = [errors(Windowed(DanceSDE(n, 0.3), AllButLast()), whole(n), s2=0.0)[-1][1] for n in (10, 20)]
    assert min(excess) > 0.3**2 / 20 * 0.9
    assert max(map(abs, ended)) < 1e-13


@pytest.mark.parametrize("make", [FlowSDE, DanceSDE])
def test_another_schedule_is_refused(make: Callable[..., Sampler]) -> None:
    x = torch.ones(1, 1)
    with pytest.raises(ValueError, match=r"expected a rectified flow .* use DDIM"):
        make(20).transition(x, x, 3, arc(20))
    with pytest.raises(ValueError, match="noise_level: expected at least 0"):
        make(20, -1.0)


def test_cps_levels_are_bounded() -> None:
    with pytest.raises(ValueError, match=r"CPS\.noise_level: expected a number in \[0, 1\], got 1.5"):
        CPS(10, 1.5)
