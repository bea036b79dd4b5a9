"""Noised final samples: their levels, their noises, and the errors of predictions."""

import pytest
import torch

from rlr.estimators import (
    AWM,
    CleanError,
    ForwardProcess,
    NoiseError,
    NormalizedError,
    PowerVelocityError,
    VelocityError,
)
from rlr.models.prediction import flow, noise, velocity
from rlr.rollout import Rollout
from rlr.schedules import RectifiedFlow
from tests.estimators.matching import T, chain, samples
from tests.test_rollout import PLAIN, STAGED, rollout, toy

ZERO = torch.zeros(2, dtype=torch.float64)


def drawn(process: ForwardProcess, batch: int, seed: int) -> torch.Tensor:
    return process.draw(chain(), batch, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("levels", "step_range"), [(1, None), (2, None), (4, None), (None, None), (2, (4, 2)), (None, (5, 4))]
)
def test_every_level_is_equally_likely_and_every_sample_has_as_many(levels, step_range) -> None:  # type: ignore[no-untyped-def]
    process = ForwardProcess(levels, step_range)
    n = T if step_range is None else step_range[0] - step_range[1] + 1
    k = process.count(chain())
    counts = torch.stack([drawn(process, 7, seed).sum(0) for seed in range(300)]).double()
    assert drawn(process, 7, 0).sum(1).tolist() == [k] * 7
    # spread evenly in every batch, and uniform on average
    assert counts.max() - counts.min() <= 3
    assert (counts.mean(0) - 7 * k / n).abs().max() < 0.15


def test_noised_samples_have_the_mean_and_the_variance_of_their_level() -> None:
    one = samples(chain(), ZERO, 4000, 0)
    for noised in ForwardProcess(2).noised(one):
        alpha, sigma = noised.levels
        assert (alpha, sigma) == (one.chain.grid.alphas[noised.step], one.chain.grid.sigmas[noised.step])
        assert torch.equal(noised.clean, one.trajectory.states[0][noised.rows])
        epsilon = (noised.states - alpha * noised.clean) / sigma
        error = len(epsilon) ** -0.5
        assert epsilon.mean(0).abs().max() < 4 * error
        assert (epsilon.var(0) - 1).abs().max() < 4 * 2**0.5 * error
        assert (epsilon * noised.clean).mean(0).abs().max() < 4 * error


def test_noises_follow_from_the_seed_and_differ_between_samples_and_levels() -> None:
    one = samples(chain(), ZERO, 6, 0)
    first, again = (torch.cat([n.states for n in ForwardProcess().noised(one)]) for _ in range(2))
    assert torch.equal(first, again)
    assert len(first.unique(dim=0)) == 6 * T
    reseeded = Rollout(one.chain, one.trajectory, one.objective, one.prompts, 7)
    assert not torch.equal(first, torch.cat([n.states for n in ForwardProcess().noised(reseeded)]))


def test_parts_of_an_update_have_the_levels_and_noises_of_the_whole() -> None:
    whole = samples(chain(), ZERO, 6, 0)
    expected = {
        (n.step, row): x
        for n in ForwardProcess(2).noised(whole)
        for row, x in zip(n.rows.tolist(), n.states, strict=True)
    }
    for rows in (torch.tensor([0, 3]), torch.tensor([1, 2, 4, 5])):
        for noised in ForwardProcess(2).noised(whole.select(rows)):
            for row, x in zip(rows[noised.rows].tolist(), noised.states, strict=True):
                assert torch.equal(expected.pop((noised.step, row)), x)
    assert not expected


@pytest.mark.parametrize("prompts", [PLAIN, STAGED], ids=["plain", "staged"])
def test_a_sample_keeps_its_prompt_of_the_step(prompts) -> None:  # type: ignore[no-untyped-def]
    whole = rollout(AWM(), toy(), prompts)
    for noised in ForwardProcess(2).noised(whole):
        expected = whole.trajectory.condition.at(noised.step).tensors["c"][noised.rows]
        assert torch.equal(noised.condition.tensors["c"], expected)


def test_steps_that_are_not_there_are_refused() -> None:
    for process, message in (
        (ForwardProcess(T + 1), r"expected at most the 5 steps that it draws from, got 6"),
        (ForwardProcess(3, (5, 4)), r"expected at most the 2 steps that it draws from, got 3"),
        (ForwardProcess(step_range=(T + 1, 1)), r"expected the first and the last of steps 5 … 1"),
    ):
        with pytest.raises(ValueError, match=message):
            process.check(chain())
    with pytest.raises(ValueError, match="expected at least 1 level"):
        ForwardProcess(0)


@pytest.mark.parametrize(
    ("predicts", "error", "levels"),
    [
        (velocity, VelocityError(), (0.6, 0.8)),
        (flow, VelocityError(), RectifiedFlow().levels(0.3)),
        (noise, NoiseError(), (0.6, 0.8)),
    ],
    ids=["velocity", "flow", "noise"],
)
def test_an_error_is_that_of_the_network_s_output(predicts, error, levels) -> None:  # type: ignore[no-untyped-def]
    """Two routes: the squared error of the output itself, and that of the denoised estimate, rescaled."""
    generator = torch.Generator().manual_seed(0)
    output, other, x = torch.randn(3, 5, 2, 3, generator=generator, dtype=torch.float64)
    e = predicts(output, x, *levels) - predicts(other, x, *levels)
    torch.testing.assert_close(error.of(e, *levels), (output - other).flatten(1).square().mean(1), rtol=1e-12, atol=0)


def test_the_other_errors() -> None:
    e = torch.tensor([[3.0, -1.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    assert CleanError().of(e, 0.6, 0.8).tolist() == [5.0, 0.0]
    found = NormalizedError().of(e, 0.6, 0.8)
    assert found.tolist() == [5.0 / 2.0, 0.0]
    (slope,) = torch.autograd.grad(found.sum(), e)
    torch.testing.assert_close(slope[0], e[0].detach() / 2)
    torch.testing.assert_close(PowerVelocityError(1.0).of(e, 0.6, 0.8), 0.8 * VelocityError().of(e, 0.6, 0.8))
    power = PowerVelocityError(0.25).of(e, 0.6, 0.8)[0].item()
    assert power == pytest.approx(4 * 0.8 * ((5 / 0.64) ** 0.25 - 1e-10**0.25), rel=1e-8)
    with pytest.raises(ValueError, match=r"expected a number in \(0, 1\]"):
        PowerVelocityError(0.0)
