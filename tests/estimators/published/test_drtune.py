"""DRTune: the published loop's gradient, full backpropagation where no output depends on its input, and few passes."""

from collections import Counter

import pytest
import torch
from scipy import stats
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators import AllSteps, DRTune, FirstOrder
from rlr.models.prediction import flow, noise, velocity
from rlr.rollout import Rollout
from rlr.samplers import DDIM, Ancestral, FlowSDE
from rlr.schedules import RectifiedFlow
from tests.estimators import problems
from tests.estimators.problems import Predicting, wavy
from tests.estimators.published.test_leapalign import gradient

T, BATCH = 6, 5

CHAINS = {
    "flow": lambda: Chain(Predicting(flow, RectifiedFlow()), FlowSDE(T, 0.7)),
    "noise": lambda: Chain(Predicting(noise), DDIM(T, 1.0)),
    "velocity": lambda: Chain(Predicting(velocity), Ancestral(T)),
}


def rollout(chain: Chain, seed: int = 0) -> Rollout:
    return problems.rollout(DRTune(), chain, wavy, BATCH, seed)


def by_hand(rollout: Rollout, trained: list[int], m: int, stopped: bool = True) -> Tensor:
    """The published loop, run again from the first noise: the input of the network is a constant in every step."""
    chain, grid, noises = rollout.chain, rollout.chain.grid, rollout.trajectory.noises
    x = noises[T]
    for t in range(T, m - 1, -1):
        output = chain.model.output(x.detach() if stopped else x, grid.times[t])
        output = output if t in trained else output.detach()
        estimate = chain.model.prediction(output, x, grid.alphas[t], grid.sigmas[t])
        if t == m:
            noise = (x - grid.alphas[t] * estimate) / grid.sigmas[t]
            x = grid.alphas[0] * estimate + grid.sigmas[0] * noise
        else:
            x = chain.sampler.transition(estimate, x, t, grid).sample(noises[t - 1])
    weights = list(chain.model.trainable.values())
    return torch.cat([g.flatten() for g in torch.autograd.grad(wavy(x).mean(), weights)])


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(("trained", "window"), [(2, 4), (3, 5), (6, 1)])
def test_its_gradient_is_that_of_the_published_loop(name: str, trained: int, window: int) -> None:
    chain, estimator, seen = CHAINS[name](), DRTune(trained, window), set()
    estimator.check(chain)
    for seed in range(8):
        sampled = rollout(chain, seed)
        steps, m = estimator.draw(sampled)
        seen.add((tuple(steps), m))
        found, expected = gradient(estimator, sampled), by_hand(sampled, steps, m)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10 * expected.abs().max().item())
        nested = [t for t in steps if t >= m]
        # where the input of a later step is not stopped, the gradient differs
        assert len(nested) == 1 or not torch.allclose(found, by_hand(sampled, steps, m, stopped=False), rtol=1e-3)
    assert len(seen) > 3 or trained == T


class Blind(Predicting):
    """A network that does not look at its input."""

    def output(self, x: Tensor, time: float) -> Tensor:
        return super().output(torch.zeros_like(x), time)


@pytest.mark.parametrize("prediction", [flow, noise, velocity])
def test_where_outputs_do_not_depend_on_inputs_it_is_full_backpropagation(prediction) -> None:  # type: ignore[no-untyped-def]
    for kind, equal in ((Blind, True), (Predicting, False)):
        chain = Chain(kind(prediction, RectifiedFlow() if prediction is flow else None), DDIM(T, 0.0))
        sampled = rollout(chain)
        expected = gradient(FirstOrder(AllSteps()), sampled)
        assert torch.allclose(gradient(DRTune(T, 1), sampled), expected, rtol=1e-8, atol=1e-12) == equal


def test_only_trained_steps_and_the_prediction_cost_a_pass() -> None:
    graphs = []

    class Watching(Predicting):
        def output(self, x: Tensor, time: float) -> Tensor:
            graphs.append(torch.is_grad_enabled())
            return super().output(x, time)

    chain, estimator = Chain(Watching(noise), DDIM(T)), DRTune(2, 4)
    for seed in range(6):
        sampled = rollout(chain, seed)
        steps, m = estimator.draw(sampled)
        graphs.clear()
        (term,) = estimator.terms(sampled)
        assert term.steps == tuple(t for t in steps if t >= m)
        assert sorted(graphs) == [False] * (m not in steps) + [True] * len(term.steps)


def test_the_reward_is_that_of_the_prediction() -> None:
    sampled = rollout(CHAINS["flow"]())
    _, m = DRTune(2, 4).draw(sampled)
    gradient(DRTune(2, 4), sampled)
    torch.testing.assert_close(sampled.rewards, wavy(sampled.predict(m)).detach(), rtol=1e-12, atol=1e-12)
    assert gradient(DRTune(2, 4, ceiling=sampled.rewards.min().item() - 1), sampled).abs().max() == 0


def test_what_is_drawn_is_spread_evenly() -> None:
    """Every start that leaves room for K steps, T // K apart, and every step of the window is equally likely."""
    sampled = rollout(Chain(Predicting(noise), DDIM(25)))
    starts, windows = Counter(), Counter()
    for seed in range(3000):
        steps, m = DRTune().draw(Rollout(sampled.chain, sampled.trajectory, sampled.objective, sampled.prompts, seed))
        assert steps == [steps[1] + 12, steps[1]]
        starts[steps[1]] += 1
        windows[m] += 1
    assert sorted(starts) == list(range(1, 14))
    assert sorted(windows) == list(range(1, 12))
    assert stats.chisquare(list(starts.values())).pvalue > 1e-4
    assert stats.chisquare(list(windows.values())).pvalue > 1e-4


REFUSED = [
    (lambda: DRTune(0), "trained >= 1"),
    (lambda: DRTune(7, 1).check(CHAINS["noise"]()), "set trained to 6 at most"),
    (lambda: DRTune(2, 5).check(CHAINS["noise"]()), "set window to 4 at most"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_impossible_settings_are_refused(case: int) -> None:
    action, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        action()
