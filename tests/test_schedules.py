import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

from rlr.schedules import (
    DiscreteSchedule,
    FlowMatch,
    Grid,
    RectifiedFlow,
    RescaledSchedule,
    Spacing,
    dynamic_shift,
    empirical_shift,
    from_reciprocal,
    leading,
    linspace,
    trailing,
    uniform,
)

ALPHAS = DiscreteSchedule.scaled_linear()


def ddim(**options: object) -> DDIMScheduler:
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, **options)


def test_scaled_linear_is_that_of_diffusers_to_the_last_digit() -> None:
    assert torch.equal(ALPHAS, ddim().alphas_cumprod)


@pytest.mark.parametrize("spacing", [leading, trailing, linspace])
@pytest.mark.parametrize("steps", [1, 3, 10, 20, 30, 50, 1000])
def test_times_are_those_of_diffusers(spacing: Spacing, steps: int) -> None:
    scheduler = ddim(timestep_spacing=spacing.__name__)
    scheduler.set_timesteps(steps)
    times = DiscreteSchedule(ALPHAS, spacing, offset=1).grid(steps).times
    # leading with an offset and all 1000 steps asks diffusers for a time 1000 that it does not have
    assert list(times[1:]) == scheduler.timesteps.flip(0).clamp(max=999).tolist()


@pytest.mark.parametrize("spacing", [leading, trailing, linspace])
def test_discrete_levels_preserve_variance_and_grow(spacing: Spacing) -> None:
    grid = DiscreteSchedule(ALPHAS, spacing).grid(20)
    assert len(grid.times) == len(grid.alphas) == len(grid.sigmas) == 21
    for alpha, sigma in zip(grid.alphas, grid.sigmas, strict=True):
        assert alpha**2 + sigma**2 == pytest.approx(1, abs=1e-15)
    assert sorted(grid.sigmas) == list(grid.sigmas)
    assert sorted(grid.times) == list(grid.times)


def test_last_state_keeps_a_small_noise_unless_stated() -> None:
    assert DiscreteSchedule(ALPHAS).grid(10).sigmas[0] == pytest.approx(0.00085**0.5, rel=1e-4)
    assert DiscreteSchedule(ALPHAS, clean=1.0).grid(10).sigmas[0] == 0


@pytest.mark.parametrize("steps", [0, 1001])
def test_steps_that_do_not_fit_raise(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"{steps} steps .* 1 … 1000 steps"):
        DiscreteSchedule(ALPHAS).grid(steps)


def test_rectified_flow_is_straight() -> None:
    grid = RectifiedFlow().grid(8)
    assert grid.sigmas == grid.times == tuple(i / 8 for i in range(9))
    assert all(alpha + sigma == 1 for alpha, sigma in zip(grid.alphas, grid.sigmas, strict=True))


def test_shift_moves_the_middle_and_keeps_the_ends() -> None:
    times = RectifiedFlow(shift=3.0).grid(4).times
    assert times == pytest.approx((0, 3 / 6, 3 / 4, 9 / 10, 1))
    # shifts compose by multiplication: s after 1/s is the identity
    assert [(u / 3) / (1 + (1 / 3 - 1) * u) for u in times] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 200, 250, 500])
def test_uniform_times_are_leading_ones_where_the_steps_divide(steps: int) -> None:
    assert DiscreteSchedule(ALPHAS, uniform).grid(steps) == DiscreteSchedule(ALPHAS, leading).grid(steps)


def strided(steps: int) -> list[int]:
    """The times of VideoCrafter's own sampler, whatever their number."""
    return [time + 1 for time in range(0, 1000, 1000 // steps)]


FAILING = 599
"""Of S = 1 … 1000, the numbers with which VideoCrafter's sampler reads the level of time 1000, which does not exist."""


def test_uniform_times_are_all_that_the_stride_gives() -> None:
    """VideoCrafter runs 31 steps for 30, and fails for 3, 9, 27, 37 and 1000: here so too, for every number of steps."""
    failing = [steps for steps in range(1, 1001) if strided(steps)[-1] == 1000]
    for steps in range(1, 1001):
        if steps not in failing:
            assert uniform(steps, 1000, 1).tolist() == strided(steps)
        else:
            with pytest.raises(ValueError, match=rf"1000 // {steps} reaches time 1000 of a schedule that ends at 999"):
                uniform(steps, 1000, 1)
    assert (len(failing), failing[:6]) == (FAILING, [3, 9, 27, 36, 37, 101])


@pytest.mark.parametrize("steps", [1001, 2000])
def test_more_steps_than_times_are_refused(steps: int) -> None:
    """VideoCrafter's stride is then 0, and its sampler fails."""
    with pytest.raises(ValueError, match=rf"a sampler of {steps} steps does not fit a schedule of 1000 times"):
        DiscreteSchedule(ALPHAS, uniform).grid(steps)


@pytest.mark.parametrize(("steps", "count"), [(6, 7), (7, 8), (30, 31), (25, 25)])
def test_a_chain_has_the_steps_of_its_grid(steps: int, count: int) -> None:
    grid = DiscreteSchedule(ALPHAS, uniform).grid(steps)
    assert grid.steps == count
    assert list(grid.times[1:]) == strided(steps)


@pytest.mark.parametrize(
    ("steps", "remedy"), [(27, "use 26 or 28 steps"), (3, "use 2 or 4 steps"), (1000, "use 500 steps")]
)
def test_a_number_of_steps_that_exceeds_the_schedule_names_its_neighbors(steps: int, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        DiscreteSchedule(ALPHAS, uniform).grid(steps)


def test_a_ramp_is_videocrafters() -> None:
    ramp = RescaledSchedule.ramp(0.7)
    assert (len(ramp), ramp[0].item(), ramp[399].item()) == (1000, 1, pytest.approx(0.7))
    assert ramp[133].item() == pytest.approx(1 - 0.3 * 133 / 399)
    assert set(ramp[400:].tolist()) == {0.7}
    assert len(RescaledSchedule.ramp(0.3, 400, 1400)) == 1400


def test_rescaled_levels_lose_signal_and_keep_their_noise() -> None:
    plain, rescaled = DiscreteSchedule(ALPHAS, uniform), RescaledSchedule(ALPHAS, RescaledSchedule.ramp(0.7))
    one, other = plain.grid(20), rescaled.grid(20)
    assert (one.times, one.sigmas) == (other.times, other.sigmas)
    assert other.scales is not None
    assert other.alphas == pytest.approx([a * s for a, s in zip(one.alphas, other.scales, strict=True)])
    assert [other.unscaled(t) for t in range(21)] == pytest.approx(one.alphas)
    assert (other.scales[0], other.scales[-1]) == (1, pytest.approx(0.7))
    assert [one.unscaled(t) for t in range(21)] == list(one.alphas)


FLOW_STEPS = [1, 2, 4, 10, 28, 40, 50, 999]


def same_levels(grid: Grid, scheduler: FlowMatchEulerDiscreteScheduler) -> bool:
    """Whether levels and network times are diffusers', to the last digit of float32."""
    sigmas = torch.tensor(grid.sigmas[::-1], dtype=torch.float32)
    times = torch.tensor(grid.times[:0:-1], dtype=torch.float32) * 1000
    return torch.equal(sigmas, scheduler.sigmas) and torch.equal(times, scheduler.timesteps)


@pytest.mark.parametrize("steps", FLOW_STEPS)
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 6.0])
def test_a_static_shift_is_that_of_diffusers(steps: int, shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    assert same_levels(FlowMatch(shift).grid(steps), scheduler)


@pytest.mark.parametrize("steps", FLOW_STEPS)
@pytest.mark.parametrize(("height", "width"), [(256, 256), (512, 768), (1024, 1024), (1536, 1024)])
@pytest.mark.parametrize("terminal", [None, 0.02])
def test_a_dynamic_shift_is_that_of_diffusers(steps: int, height: int, width: int, terminal: float | None) -> None:
    tokens = (height // 16) * (width // 16)
    mu = dynamic_shift(tokens, max_shift=0.9)
    assert mu == pytest.approx(calculate_shift(tokens, 256, 4096, 0.5, 0.9))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, shift_terminal=terminal)
    if steps > 1 or terminal is None:
        scheduler.set_timesteps(steps, mu=mu)
        assert close_levels(FlowMatch(mu=mu, terminal=terminal).grid(steps), scheduler)
        scheduler.set_timesteps(steps, mu=mu, sigmas=np.linspace(1.0, 1 / steps, steps))
        assert close_levels(FlowMatch(mu=mu, spacing=from_reciprocal, terminal=terminal).grid(steps), scheduler)


def close_levels(grid: Grid, scheduler: FlowMatchEulerDiscreteScheduler) -> bool:
    r"""As above within two digits of float32: :math:`e^\mu` enters there in another form."""
    return torch.allclose(torch.tensor(grid.sigmas[::-1]).float(), scheduler.sigmas, rtol=2.5e-7, atol=3e-7)


def test_the_grid_of_a_plain_shift_is_another() -> None:
    ours, plain = FlowMatch(3.0).grid(10), RectifiedFlow(3.0).grid(10)
    assert max(abs(a - b) for a, b in zip(ours.sigmas, plain.sigmas, strict=True)) > 0.1
    assert ours.sigmas[0] == 0
    assert ours.sigmas[-1] == 1
    assert ours.sigmas[1] == pytest.approx(9 / 1000, rel=0.02)


def test_a_flow_has_at_most_the_steps_of_training() -> None:
    with pytest.raises(ValueError, match=r"1001 steps .* use 1 … 1000 steps"):
        FlowMatch(3.0).grid(1001)
    for shift in (0.0, -3.0, float("nan")):
        with pytest.raises(ValueError, match="expected a shift above 0"):
            FlowMatch(shift)


@pytest.mark.parametrize("tokens", [16, 1024, 4096, 4300, 4301, 16384])
@pytest.mark.parametrize("steps", [1, 4, 50, 200])
def test_the_shift_of_flux2_depends_on_tokens_and_steps(tokens: int, steps: int) -> None:
    assert empirical_shift(tokens, steps) == pytest.approx(compute_empirical_mu(tokens, steps), rel=1e-12)
    grid, fixed = (
        FlowMatch(mu=mu, spacing=from_reciprocal).grid(steps)
        for mu in (lambda steps: empirical_shift(tokens, steps), empirical_shift(tokens, steps))
    )
    assert grid == fixed


def test_times_of_ratios_invert_the_levels() -> None:
    schedule = DiscreteSchedule(ALPHAS)
    levels = torch.tensor([schedule.levels(time) for time in range(1000)], dtype=torch.float64)
    torch.testing.assert_close(schedule.time_at(*levels.T), torch.arange(1000, dtype=torch.float64), rtol=0, atol=1e-8)
    # the ratio alone matters, and a time between two lies between their angles
    between = (levels[400] / levels[400].norm() + levels[401] / levels[401].norm()) * 3
    assert schedule.time_at(*between).item() == pytest.approx(400.5, abs=1e-3)
    ends = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert schedule.time_at(*ends).tolist() == [0, 999]
