"""Windows of noise: where they lie, and that the chain is deterministic elsewhere."""

from collections import Counter

import pytest
import torch
from scipy import stats

from rlr.chain import Chain
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
    SlidingWindow,
    Windowed,
)
from rlr.schedules import DiscreteSchedule, Grid, RectifiedFlow
from tests.estimators.problems import Affine

T = 8
FLOW, DISCRETE = RectifiedFlow().grid(T), DiscreteSchedule(DiscreteSchedule.scaled_linear()).grid(T)
SAMPLERS = [
    (FlowSDE(T, 0.7), FLOW),
    (DanceSDE(T, 0.3), FLOW),
    (CPS(T, 0.8), FLOW),
    (DDIM(T, 0.9), DISCRETE),
    (Ancestral(T, 0.5), DISCRETE),
]
PAIRS = pytest.mark.parametrize(("sampler", "grid"), SAMPLERS, ids=[type(s).__name__ for s, _ in SAMPLERS])


def states() -> tuple[torch.Tensor, torch.Tensor]:
    denoised, x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return denoised, x


@PAIRS
def test_a_window_of_all_steps_is_the_sampler_itself(sampler: Sampler, grid: Grid) -> None:
    denoised, x = states()
    for window in (FixedWindow(T, 1), AllButLast(0), RandomWindow(T, within=T), SlidingWindow(T)):
        for t in range(1, T + 1):
            found = Windowed(sampler, window).transition(denoised, x, t, grid)
            expected = sampler.transition(denoised, x, t, grid)
            assert torch.equal(found.mean, expected.mean)
            assert found.std == expected.std == Windowed(sampler, window).std(t, grid)


@PAIRS
def test_outside_the_window_the_step_is_the_deterministic_one(sampler: Sampler, grid: Grid) -> None:
    denoised, x = states()
    windowed = Windowed(sampler, FixedWindow(6, 4))
    for t in range(1, T + 1):
        found = windowed.transition(denoised, x, t, grid)
        inside = t in (6, 5, 4)
        expected = sampler if inside else DDIM(T, 0.0)
        torch.testing.assert_close(found.mean, expected.transition(denoised, x, t, grid).mean, rtol=0, atol=0)
        assert (windowed.std(t, grid) > 0) == (found.std > 0) == inside
    if grid is FLOW:
        euler = FlowSDE(T, 0.0).transition(denoised, x, 8, grid)
        torch.testing.assert_close(windowed.transition(denoised, x, 8, grid).mean, euler.mean, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("inner", [FlowSDE(4, 0.7), DanceSDE(4, 0.3), CPS(4, 0.9)], ids=lambda s: type(s).__name__)
def test_the_last_step_of_a_few_step_chain_is_deterministic(inner: Sampler) -> None:
    """It ends in the last estimate, without the noise that an Euler–Maruyama step adds."""
    policy = Chain(Affine(RectifiedFlow()), Windowed(inner, AllButLast()))
    assert policy.noisy_steps == [2, 3, 4]
    noises = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    states = policy.sample(policy.encode(["x"] * 3), noises).states
    estimate = policy.denoise(states[1], 1, policy.encode(["x"] * 3))
    torch.testing.assert_close(states[0], estimate, rtol=1e-13, atol=1e-13)
    full = Chain(Affine(RectifiedFlow()), inner)
    assert torch.equal(full.sample(full.encode(["x"] * 3), noises).states[1], states[1])


def test_windows_are_where_they_are_published() -> None:
    seen = Counter(RandomWindow(3).place(10, 0, seed) for seed in range(1500))
    assert sorted(window[0] for window in seen) == [8, 9, 10]
    assert all(len(window) == 3 and window.step == -1 for window in seen)
    assert stats.chisquare(list(seen.values())).pvalue > 1e-4
    firsts = [SlidingWindow(4, rounds=2, stride=3).place(10, rounds, 0)[0] for rounds in range(8)]
    assert firsts == [10, 10, 7, 7, 4, 4, 4, 4]


def test_a_random_window_may_lie_anywhere() -> None:
    assert {RandomWindow(3, within=99).place(10, 0, seed)[0] for seed in range(400)} == set(range(3, 11))


def test_the_chain_of_a_round_has_the_window_of_the_round_and_no_other_changes() -> None:
    policy = Chain(Affine(RectifiedFlow()), Windowed(FlowSDE(T), SlidingWindow(2, rounds=1)), checkpoint=True)
    third = policy.in_round(3, 0)
    assert third.noisy_steps == [4, 5]
    assert policy.noisy_steps == policy.in_round(0, 9).noisy_steps == [7, 8]
    assert (third.model, third.checkpoint, third.steps) == (policy.model, True, T)
    plain = Chain(Affine(RectifiedFlow()), FlowSDE(T))
    assert plain.in_round(3, 0) is plain


REFUSED = [
    (lambda: SlidingWindow(0), "SlidingWindow.length: expected at least 1"),
    (lambda: SlidingWindow(2, rounds=0), "rounds >= 1"),
    (lambda: RandomWindow(3, within=2), "within: expected at least length=3"),
    (lambda: FixedWindow(2, 3), "steps count down"),
    (lambda: AllButLast(-1), r"AllButLast\.count: expected at least 0"),
    (
        lambda: Windowed(FlowSDE(T), FixedWindow(9, 8)).std(1, FLOW),
        "needs a chain of 9 steps or more, and this one has 8",
    ),
    (lambda: Windowed(FlowSDE(T), RandomWindow(9)).std(1, FLOW), "set length lower"),
    (lambda: Windowed(FlowSDE(T), AllButLast(8)).std(1, FLOW), "set count lower"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_impossible_windows_are_refused(case: int) -> None:
    action, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        action()
