import pytest
import torch
from diffusers import DDIMScheduler

from rlr.schedules import DiscreteSchedule, RectifiedFlow, Spacing, leading, linspace, trailing

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


def test_last_state_keeps_a_small_noise_unless_told() -> None:
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
