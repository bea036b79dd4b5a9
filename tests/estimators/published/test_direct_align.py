"""Direct-Align: recovery is exact for an exact prediction, its gradient is the interpolation's, and close where r = 0 to ReFL's."""

from collections import Counter

import pytest
import torch
from scipy import stats
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators import DirectAlign
from rlr.models.base import Condition
from rlr.models.prediction import flow, noise
from rlr.rollout import Rollout
from rlr.samplers import DDIM, FlowSDE
from rlr.schedules import RectifiedFlow
from tests.estimators import problems
from tests.estimators.problems import Plane, Predicting, wavy
from tests.estimators.published.test_leapalign import gradient

T, BATCH = 10, 5

CHAINS = {
    "flow": lambda: Chain(Predicting(flow, RectifiedFlow()), FlowSDE(T, 0.7)),
    "noise": lambda: Chain(Predicting(noise), DDIM(T, 1.0)),
}
KEPT = {"flow": (9, 1), "noise": (10, 1)}
"""On a flow the noisiest state has no signal, and the share of the sample in it is 0."""


def rollout(chain: Chain, seed: int = 0) -> Rollout:
    return problems.rollout(DirectAlign(), chain, wavy, BATCH, seed)


def share(chain: Chain, t: int, s: int) -> float:
    """The r of the formula."""
    grid = chain.grid
    return grid.sigmas[s] * grid.alphas[t] / (grid.alphas[s] * grid.sigmas[t])


def by_hand(rollout: Rollout, t: int, s: int, known: bool = True) -> Tensor:
    """The gradient of the reward of x₀ + (1 − r)(x̂₀ − x₀), times the discount."""
    chain, x = rollout.chain, rollout.trajectory.states[0]
    grid = chain.grid
    noised = grid.alphas[t] * x + grid.sigmas[t] * rollout.trajectory.noises[T]
    denoised = chain.model.denoise(noised, grid.times[t], rollout.trajectory.condition)
    kept = share(chain, t, s) if known else 0.0
    discount = 3 * (s / T) / (1 + 2 * s / T)
    loss = discount * wavy(kept * x + (1 - kept) * denoised).mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(chain.model.trainable.values()))])


@pytest.mark.parametrize("name", CHAINS)
def test_its_gradient_is_that_of_the_interpolation(name: str) -> None:
    chain, estimator = CHAINS[name](), DirectAlign(step_range=KEPT[name])
    estimator.check(chain)
    for seed in range(10):
        sampled = rollout(chain, seed)
        t, s = estimator.draw(sampled, 0)
        found = gradient(estimator, sampled)
        torch.testing.assert_close(found, by_hand(sampled, t, s), rtol=1e-8, atol=1e-12)
        # the one-step prediction itself, as in ReFL, is another thing
        assert not torch.allclose(found, by_hand(sampled, t, s, known=False), rtol=1e-2)


@pytest.mark.parametrize("inversion", [0.0, 2.0])
def test_several_draws_are_averaged_and_inversion_is_subtracted(inversion: float) -> None:
    chain = CHAINS["noise"]()
    sampled = rollout(chain)
    estimator = DirectAlign(draws=3, inversion=inversion, weight=0.5)
    expected = torch.zeros_like(by_hand(sampled, 2, 1))
    for k in range(3):
        t, s = estimator.draw(sampled, k)
        expected += 0.5 / 3 * by_hand(sampled, t, s)
        if inversion:
            # from s up to t: r is above 1, and the sample leads away from the prediction
            up = by_hand(sampled, s, t) / (3 * t / (T + 2 * t)) * (3 * s / (T + 2 * s))
            expected -= inversion * 0.5 / 3 * up
    torch.testing.assert_close(gradient(estimator, sampled), expected, rtol=1e-8, atol=1e-12)


class Knowing(Plane):
    """Predicts the noise that it knows, so that its predictions are exact."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
        self.noise = torch.zeros(())

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        alpha, sigma = self.noise_schedule.levels(time)
        return (x - sigma * self.scale * self.noise) / alpha


def test_exact_predictions_recover_the_sample() -> None:
    chain = Chain(Knowing(), DDIM(T))
    sampled = rollout(chain)
    chain.model.noise = sampled.trajectory.noises[T]
    for t, s in ((2, 1), (7, 4), (10, 9), (4, 8)):
        found = DirectAlign()._recovered(sampled, t, s)
        torch.testing.assert_close(found, sampled.trajectory.states[0], rtol=1e-9, atol=1e-9)
        with torch.no_grad():
            chain.model.scale *= 1.1
        assert (DirectAlign()._recovered(sampled, t, s) - found).abs().max() > 1e-3
        with torch.no_grad():
            chain.model.scale /= 1.1


def test_states_are_drawn_evenly_and_steps_are_short_at_both_ends() -> None:
    sampled = rollout(CHAINS["noise"]())
    seen: Counter[tuple[int, int]] = Counter()
    for seed in range(2000):
        again = Rollout(sampled.chain, sampled.trajectory, sampled.objective, sampled.prompts, seed)
        seen[DirectAlign().draw(again, 0)] += 1
    assert set(seen) == {(2, 1), (4, 2), (6, 3), (8, 4), (9, 5), (10, 6), (10, 7), (10, 8), (10, 9)}
    assert stats.chisquare(list(seen.values())).pvalue > 1e-4


REFUSED = [
    (lambda: DirectAlign(0), "draws >= 1"),
    (lambda: DirectAlign(span=0.0), "span in"),
    (lambda: DirectAlign(step_range=(2, 5)).check(CHAINS["noise"]()), "the noisier one first"),
    (lambda: DirectAlign(inversion=1.0).check(CHAINS["flow"]()), r"set step_range to \[9, 1\]"),
    (lambda: DirectAlign().check(problems.linear_chain(1)), "the sampler's steps to 2"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_impossible_settings_are_refused(case: int) -> None:
    action, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        action()
