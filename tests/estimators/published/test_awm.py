"""AWM: its mean gradient is known on an affine model, and its later updates are those of its loss, written out again."""

import pytest
import torch
from torch import Tensor

from rlr.analysis.linear import Affine
from rlr.chain import Chain
from rlr.estimators import AWM, DecayRamp, ForwardProcess, ImportanceRatio, ScoreFunction, Unscaled, VelocityError, Zero
from rlr.estimators import forward_process as module
from rlr.estimators.forward_process import Noised
from rlr.rollout import Rollout
from rlr.samplers import DDIM, FlowSDE
from rlr.schedules import RectifiedFlow
from tests.estimators.matching import gradient
from tests.estimators.problems import quadratic, rollout

CHAINS = {
    "deterministic": lambda: Chain(Affine(), DDIM(4, eta=0.0)),
    "flow": lambda: Chain(Affine(RectifiedFlow(3.0)), FlowSDE(4)),
}


def plain(**settings: object) -> AWM:
    """Advantages that are rewards, the error of the paper's equations, and nothing else."""
    settings = {
        "process": ForwardProcess(2),
        "error": VelocityError(),
        "surrogate": ScoreFunction(),
        "statistics": Unscaled(Zero()),
        "advantage_clip": 1e9,
        "kl": 0.0,
        "old_weight": 0.0,
        "num_minibatches": 1,
        **settings,
    }
    return AWM(**settings)  # type: ignore[arg-type]


def exact(one: Rollout) -> Tensor:
    r"""The gradient of the mean over samples, levels and *all* noises of :math:`A |e|^2 / (D \sigma^2)`.

    With :math:`\hat x_0 = a x + b + c \tau` the mean of :math:`e^2` is
    :math:`((a \alpha - 1) x_0 + b + c \tau)^2 + a^2 \sigma^2`.
    """
    chain, x = one.chain, one.trajectory.states[0]
    w = chain.model.get_parameter("w").detach().clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for t in range(1, chain.steps + 1):
        alpha, sigma, time = chain.grid.alphas[t], chain.grid.sigmas[t], chain.grid.times[t]
        mean = (w[0] * alpha - 1) * x + w[1] + w[2] * time
        m = (mean.square().mean(1) + w[0] ** 2 * sigma**2) / sigma**2
        total = total + (one.rewards * m).mean() / chain.steps
    return torch.autograd.grad(total / 1e9, w)[0]


def deviation(one: Rollout, count: int = 200) -> float:
    """The largest deviation of the mean gradient over noises from the exact one, in standard errors."""
    reseeded = (
        Rollout(one.chain, one.trajectory, one.objective, one.prompts, seed, one.scores) for seed in range(count)
    )
    draws = torch.stack([gradient(plain(), each) for each in reseeded])
    return ((draws.mean(0) - exact(one)) / draws.std(0) * count**0.5).abs().max().item()


@pytest.mark.parametrize("name", CHAINS)
def test_its_mean_gradient_is_the_exact_one(name: str) -> None:
    assert deviation(rollout(plain(), CHAINS[name](), quadratic, 64)) < 4


@pytest.mark.parametrize("name", CHAINS)
def test_samples_at_the_wrong_level_would_be_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = module._noise

    def wrong(one: Rollout, t: int, rows: Tensor) -> Noised:
        noised = right(one, t, rows)
        object.__setattr__(noised, "states", 0.9 * noised.states)
        return noised

    monkeypatch.setattr(module, "_noise", wrong)
    assert deviation(rollout(plain(), CHAINS[name](), quadratic, 64)) > 10


def test_the_ratio_has_the_same_first_gradient() -> None:
    one = rollout(plain(), CHAINS["deterministic"](), quadratic, 8)
    ratio = plain(surrogate=ImportanceRatio(1.0))
    torch.testing.assert_close(gradient(ratio, one), gradient(plain(), one), rtol=1e-12, atol=0)


def test_a_later_update_is_that_of_the_loss() -> None:
    """Two updates of a round; the second has the ratio to the weights of the rollout and the distance from the old policy."""
    chain = CHAINS["deterministic"]()
    estimator = plain(
        surrogate=ImportanceRatio(None), advantage_clip=1.0, epochs=2, old_weight=0.3, decay=DecayRamp(0.0, 0.0)
    )
    one = rollout(estimator, chain, quadratic, 8)
    w, start = chain.model.get_parameter("w"), chain.model.get_parameter("w").detach().clone()
    updates = estimator.updates([one])
    list(next(updates))
    with torch.no_grad():
        w += torch.tensor([0.02, -0.05, 0.03], dtype=torch.float64)
    seen: list[Noised] = []
    noised = estimator.process.noised
    estimator.process.noised = lambda r: (seen.append(n) or n for n in noised(r))  # type: ignore[method-assign,func-returns-value]
    chain.zero_grad()
    for term in next(updates):
        term.loss.backward()
    found, advantages = w.grad.clone(), one.rewards.clamp(-1, 1)  # type: ignore[union-attr]

    def log_probs(n: Noised, weights: Tensor) -> tuple[Tensor, Tensor]:
        prediction = weights[0] * n.states + weights[1] + weights[2] * chain.grid.times[n.step]
        return -((prediction - n.clean) / n.levels[1]).square().mean(1), prediction / n.levels[1]

    loss = torch.zeros((), dtype=torch.float64)
    again = w.detach().clone().requires_grad_()
    for n in seen:
        (now, v), (then, v_old) = log_probs(n, again), log_probs(n, start)
        loss = loss - (advantages[n.rows] * (now - then).exp()).sum() + 0.3 * (v - v_old).square().mean(1).sum()
    (expected,) = torch.autograd.grad(loss / (8 * 2), again)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-14)
    assert not torch.allclose(w.detach(), start)


def test_a_score_function_makes_one_update() -> None:
    with pytest.raises(ValueError, match="set AWM's num_minibatches and epochs to 1, or use ImportanceRatio"):
        plain(num_minibatches=2)
