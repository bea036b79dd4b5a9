r"""Laws of the samplers.

With Gaussian data :math:`x_0 \sim \mathcal{N}(m, s^2)` the exact denoiser is affine, hence so is every step, and the
moments of the chain follow an exact recursion: no test here draws a sample.
"""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from rlr.models.prediction import PREDICTIONS
from rlr.samplers import CPS, DDIM, Ancestral, FixedWindow, FlowSDE, Sampler, Windowed
from rlr.samplers.windows import Window
from rlr.schedules import DiscreteSchedule, Grid, RectifiedFlow, RescaledSchedule, Spacing, leading, trailing

M, S2 = 0.5, 0.25
GRID = DiscreteSchedule(DiscreteSchedule.scaled_linear(), leading).grid(20)
RESCALED = RescaledSchedule(DiscreteSchedule.scaled_linear(), RescaledSchedule.ramp(0.7)).grid(20)
STOCHASTIC = [CPS(20, 0.6), DDIM(20, 0.0), DDIM(20, 0.3), DDIM(20, 1.0), Ancestral(20, 0.0)]


def identify(sampler: Sampler | Window) -> str:
    values = (
        identify(v) if isinstance(v, Sampler | Window) else str(v) for k, v in vars(sampler).items() if k != "steps"
    )
    return f"{type(sampler).__name__}({', '.join(values)})"


def affine(step: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """Returns the (constant, slope) of an affine map of the line."""
    y = step(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    return y[0].item(), (y[1] - y[0]).item()


def marginal(t: int, grid: Grid, s2: float) -> tuple[float, float]:
    return grid.alphas[t] * M, grid.alphas[t] ** 2 * s2 + grid.sigmas[t] ** 2


def errors(sampler: Sampler, grid: Grid, s2: float = S2) -> list[tuple[float, float]]:
    """Returns the errors of mean and variance of all states, of a chain that starts on the marginal."""
    steps = len(grid.times) - 1
    mean, variance = marginal(steps, grid, s2)
    result = []
    for t in range(steps, 0, -1):
        alpha, sigma = grid.alphas[t], grid.sigmas[t]
        gain = alpha * s2 / (alpha**2 * s2 + sigma**2)
        constant, slope = affine(
            lambda x, t=t, alpha=alpha, gain=gain: sampler.transition(M + gain * (x - alpha * M), x, t, grid).mean
        )
        mean, variance = constant + slope * mean, slope**2 * variance + sampler.std(t, grid) ** 2
        exact = marginal(t - 1, grid, s2)
        result.append((mean - exact[0], variance - exact[1]))
    return result


def order(sampler: Callable[[int], Sampler], grid: Callable[[int], Grid], counts: Sequence[int]) -> list[float]:
    """Returns the measured orders of convergence of the last variance, between successive numbers of steps."""
    error = [abs(errors(sampler(n), grid(n))[-1][1]) for n in counts]
    pairs = zip(counts, counts[1:], error, error[1:], strict=False)
    return [math.log(e / f) / math.log(m / n) for n, m, e, f in pairs]


def arc(steps: int) -> Grid:
    r"""Returns a variance-preserving grid with evenly spaced angles, from :math:`\sigma = 0.95`."""
    angles = [math.asin(0.95) * t / steps for t in range(steps + 1)]
    return Grid(tuple(range(steps + 1)), tuple(map(math.cos, angles)), tuple(map(math.sin, angles)))


def line(steps: int) -> Grid:
    r"""Returns a rectified flow's grid that starts at :math:`\sigma = 0.9`."""
    sigmas = tuple(0.9 * t / steps for t in range(steps + 1))
    return Grid(sigmas, tuple(1 - sigma for sigma in sigmas), sigmas)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", [leading, trailing])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_agrees_with_diffusers_over_all_steps(prediction: str, spacing: Spacing, eta: float) -> None:
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
        steps_offset=1,
        clip_sample=False,
        prediction_type=prediction,
        timestep_spacing=spacing.__name__,
    )
    # its own arithmetic is float32 otherwise, and 1 / α at the first step makes 1e-5 of that
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(25)
    grid = DiscreteSchedule(scheduler.alphas_cumprod, spacing).grid(25)
    noises = torch.randn(26, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = y = noises[25]
    for t, time in zip(range(25, 0, -1), scheduler.timesteps, strict=True):
        # any function does for the network
        estimate = PREDICTIONS[prediction](torch.sin(3 * x + t), x, grid.alphas[t], grid.sigmas[t])
        x = DDIM(25, eta).transition(estimate, x, t, grid).sample(noises[t - 1])
        y = scheduler.step(torch.sin(3 * y + t), time, y, eta=eta, variance_noise=noises[t - 1]).prev_sample
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("grid", [GRID, RESCALED], ids=["plain", "rescaled"])
@pytest.mark.parametrize("sampler", STOCHASTIC, ids=identify)
def test_a_clean_sample_in_place_of_the_estimate_gives_the_marginal(sampler: Sampler, grid: Grid) -> None:
    r"""From :math:`x_t = \alpha_t x_0 + \sigma_t z`, given :math:`x_0`, to the law of :math:`x_{t-1}` given :math:`x_0`."""
    for t in range(20, 0, -1):
        zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
        of_clean = sampler.transition(one, grid.alphas[t] * one, t, grid).mean.item()
        of_noise = sampler.transition(zero, grid.sigmas[t] * one, t, grid).mean.item()
        assert of_clean == pytest.approx(grid.alphas[t - 1], abs=1e-13)
        assert of_noise**2 + sampler.std(t, grid) ** 2 == pytest.approx(grid.sigmas[t - 1] ** 2, abs=1e-13)


@pytest.mark.parametrize("grid", [GRID, RESCALED], ids=["plain", "rescaled"])
@pytest.mark.parametrize("sampler", STOCHASTIC, ids=identify)
def test_the_mean_is_exact_and_so_is_the_variance_of_point_data(sampler: Sampler, grid: Grid) -> None:
    assert max(abs(mean) for mean, _ in errors(sampler, grid)) < 1e-13
    assert max(abs(variance) for _, variance in errors(sampler, grid, s2=0.0)) < 1e-13


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_variance_converges_to_the_marginal_with_order_one(eta: float) -> None:
    slopes = order(lambda n: DDIM(n, eta), arc, (100, 200, 400, 800))
    assert slopes == pytest.approx([1, 1, 1], abs=0.15)
    assert slopes[-1] == pytest.approx(1, abs=0.05)


def test_ddim_wants_eta_on_the_standard_deviation() -> None:
    full, half = DDIM(20, 1.0), DDIM(20, 0.5)
    for t in range(1, 21):
        assert half.std(t, GRID) == pytest.approx(full.std(t, GRID) / 2, rel=1e-12)


def test_a_rescale_of_the_signal_leaves_the_standard_deviation() -> None:
    for eta in (0.3, 1.0):
        assert [DDIM(20, eta).std(t, RESCALED) for t in range(1, 21)] == pytest.approx(
            [DDIM(20, eta).std(t, GRID) for t in range(1, 21)], rel=1e-12
        )


def test_ancestral_of_smallest_variance_is_ddim() -> None:
    generator = torch.Generator().manual_seed(0)
    denoised, x = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    for t in range(1, 21):
        a, d = Ancestral(20, 0.0).transition(denoised, x, t, GRID), DDIM(20, 1.0).transition(denoised, x, t, GRID)
        torch.testing.assert_close(a.mean, d.mean, rtol=1e-11, atol=1e-12)
        assert a.std == pytest.approx(d.std, rel=1e-10)


def test_ancestral_variances_are_ordered_and_interpolate_geometrically() -> None:
    for t in range(1, 21):
        small, middle, large = (Ancestral(20, v).std(t, GRID) for v in (0.0, 0.5, 1.0))
        assert small < middle < large
        assert middle == pytest.approx((small * large) ** 0.5, rel=1e-12)


def test_each_ancestral_variance_is_exact_for_the_data_it_is_made_for() -> None:
    """The smallest for a point, the largest for a unit Gaussian, and not the other way round (Ho et al., section 3.2)."""
    assert max(abs(v) for _, v in errors(Ancestral(20, 0.0), GRID, s2=0.0)) < 1e-13
    assert max(abs(v) for _, v in errors(Ancestral(20, 1.0), GRID, s2=1.0)) < 1e-13
    assert max(abs(v) for _, v in errors(Ancestral(20, 0.0), GRID, s2=1.0)) > 0.1
    assert max(abs(v) for _, v in errors(Ancestral(20, 1.0), GRID, s2=0.0)) > 0.01


def test_flow_without_noise_is_euler() -> None:
    generator = torch.Generator().manual_seed(0)
    denoised, x = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    grid = RectifiedFlow(shift=2.0).grid(10)
    for t in range(10, 0, -1):
        transition = FlowSDE(10, 0.0).transition(denoised, x, t, grid)
        velocity = (x - denoised) / grid.sigmas[t]
        assert transition.std == 0
        torch.testing.assert_close(transition.mean, x - velocity * (grid.sigmas[t] - grid.sigmas[t - 1]))


@pytest.mark.parametrize("noise_level", [0.0, 0.3, 0.7, 1.2])
def test_flow_keeps_the_marginals_with_order_one(noise_level: float) -> None:
    assert max(abs(mean) for mean, _ in errors(FlowSDE(50, noise_level), RectifiedFlow().grid(50))) < 1e-12
    slopes = order(lambda n: FlowSDE(n, noise_level), line, (100, 200, 400, 800))
    assert slopes == pytest.approx([1, 1, 1], abs=0.2)
    assert slopes[-1] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("noise_level", [0.3, 0.7])
def test_the_first_step_of_a_flow_adds_variance_that_more_steps_do_not_remove(noise_level: float) -> None:
    r"""The published stand-in at :math:`\sigma = 1` costs :math:`a^4 / 4`, by :math:`(1 - a^2 / 2)^2 + a^2 - 1`."""
    excess = [errors(FlowSDE(n, noise_level), RectifiedFlow().grid(n))[0][1] for n in (1000, 10000)]
    assert excess[1] == pytest.approx(noise_level**4 / 4, rel=0.02)
    assert abs(excess[1] - noise_level**4 / 4) < abs(excess[0] - noise_level**4 / 4)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_flow_is_finite_from_pure_noise_to_the_end(steps: int) -> None:
    grid = RectifiedFlow().grid(steps)
    assert all(math.isfinite(FlowSDE(steps, 0.7).std(t, grid)) for t in range(1, steps + 1))


@pytest.mark.parametrize(
    "sampler", [DDIM(20, 0.0), DDIM(20, 0.6), Ancestral(20, 0.5), Windowed(DDIM(20), FixedWindow(9, 4))], ids=identify
)
def test_std_is_that_of_the_transition(sampler: Sampler) -> None:
    x = torch.ones(1, 1)
    assert all(sampler.std(t, GRID) == sampler.transition(x, x, t, GRID).std for t in range(1, 21))


def test_bad_settings_raise_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"DDIM\.steps: expected at least 1, got 0"):
        DDIM(0)
    with pytest.raises(ValueError, match=r"DDIM\.eta: expected a number in \[0, 1\], got"):
        DDIM(10, 1.5)
    with pytest.raises(ValueError, match=r"Ancestral\.variance: expected a number in \[0, 1\], got"):
        Ancestral(10, -0.1)
    with pytest.raises(ValueError, match=r"FlowSDE\.noise_level: expected at least 0, got"):
        FlowSDE(10, -1)
    x = torch.ones(1, 1)
    with pytest.raises(ValueError, match="use DDIM"):
        FlowSDE(20).transition(x, x, 3, GRID)
