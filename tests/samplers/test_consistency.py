"""Laws of the sampling of consistency models."""

import pytest
import torch
from diffusers import LCMScheduler

from rlr.models.prediction import PREDICTIONS
from rlr.samplers import CPS, Consistency
from rlr.schedules import DiscreteSchedule, RectifiedFlow, RescaledSchedule, distilled, leading

ABAR = DiscreteSchedule.scaled_linear()
FOUR = DiscreteSchedule(ABAR, distilled, clean=1.0).grid(4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_agrees_with_diffusers_over_all_steps(prediction: str, steps: int) -> None:
    scheduler = LCMScheduler(original_inference_steps=200, prediction_type=prediction, set_alpha_to_one=True)
    # its own arithmetic is float32 otherwise
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(steps)
    grid = DiscreteSchedule(scheduler.alphas_cumprod, distilled, clean=1.0).grid(steps)
    assert list(grid.times[:0:-1]) == scheduler.timesteps.tolist()
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn, theirs = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    x = y = noise
    for t, time in zip(range(steps, 0, -1), scheduler.timesteps, strict=True):
        # any function does for the network
        estimate = PREDICTIONS[prediction](torch.sin(3 * x + t), x, grid.alphas[t], grid.sigmas[t])
        new = torch.randn(2, 3, generator=drawn, dtype=torch.float64) if t > 1 else torch.zeros(2, 3).double()
        x = Consistency(steps).transition(estimate, x, t, grid).sample(new)
        y = scheduler.step(torch.sin(3 * y + t), time, y, generator=theirs).prev_sample
        # its boundary conditions stay float32
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)


def test_times_are_those_of_the_published_programs() -> None:
    assert distilled(4, 1000, 0).tolist() == [249, 499, 749, 999]
    assert distilled(8, 1000, 0).tolist() == [124, 249, 374, 499, 624, 749, 874, 999]
    # 200 // 7 = 28 of 200 times that are 5 apart
    assert distilled(7, 1000, 0).tolist() == [159, 299, 439, 579, 719, 859, 999]
    assert distilled(4, 1000, 0, origin=50).tolist() == [279, 519, 759, 999]
    with pytest.raises(ValueError, match=r"51 steps do not fit 50 times of a distilled model; use 1 … 50 steps"):
        distilled(51, 1000, 0, origin=50)


def test_the_function_is_the_identity_at_time_zero_and_the_estimate_far_from_it() -> None:
    sampler = Consistency()
    assert sampler.boundary(0) == (1, 0)
    for time in (0, 0.01, 0.05, 1, 20, 999):
        c_skip, c_out = sampler.boundary(time)
        assert c_skip + c_out**2 == pytest.approx(1, abs=1e-15)
    assert sampler.boundary(249)[0] < 1e-7
    assert 1 - sampler.boundary(249)[1] < 1e-7
    # at u = d both are known
    assert Consistency(scaling=1.0, sigma_data=0.5).boundary(0.5) == pytest.approx((0.5, 0.5**0.5))


def test_all_steps_but_the_last_have_the_noise_of_their_level() -> None:
    assert [Consistency().std(t, FOUR) for t in (1, 2, 3, 4)] == [0.0, *FOUR.sigmas[1:4]]
    # also where the last level of the schedule has noise
    noisy = DiscreteSchedule(ABAR, leading).grid(4)
    assert noisy.sigmas[0] > 0
    assert Consistency().std(1, noisy) == 0
    x, estimate = torch.randn(2, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    last, (c_skip, c_out) = Consistency().transition(estimate, x, 1, noisy), Consistency().boundary(noisy.times[1])
    assert torch.equal(last.mean, c_skip * x + c_out * estimate)


def test_is_cps_with_all_noise_anew_up_to_the_boundary() -> None:
    x, estimate = torch.randn(2, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in (4, 3, 2, 1):
        found, other = (s.transition(estimate, x, t, FOUR) for s in (Consistency(), CPS(4, 1.0)))
        assert found.std == pytest.approx(other.std, abs=1e-12)
        torch.testing.assert_close(found.mean, other.mean, rtol=0, atol=1e-6)
    # a larger boundary is seen
    wide = Consistency(scaling=1e-3).transition(estimate, x, 2, FOUR)
    assert (wide.mean - CPS(4, 1.0).transition(estimate, x, 2, FOUR).mean).abs().max() > 1e-2


def test_mistakes() -> None:
    for options in ({"scaling": 0.0}, {"sigma_data": -1.0}):
        with pytest.raises(ValueError, match=r"Consistency\.\w+: expected a number above 0"):
            Consistency(**options)
    x = torch.zeros(1, 1)
    with pytest.raises(ValueError, match=r"Consistency: expected a schedule of integer times .* use CPS"):
        Consistency(4).transition(x, x, 2, RectifiedFlow().grid(4))
    rescaled = RescaledSchedule(ABAR, RescaledSchedule.ramp(0.7)).grid(4)
    assert Consistency(4).transition(x, x, 2, rescaled).std > 0
