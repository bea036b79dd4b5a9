"""Chains whose gradients are known: the laws of the estimators are tested on them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rlr.analysis.linear import TARGET, Affine
from rlr.analysis.linear import Cosine as Cosine
from rlr.analysis.linear import Plane as Plane
from rlr.analysis.linear import affine as affine
from rlr.analysis.linear import exact_gradients as exact_gradients
from rlr.analysis.linear import linear_chain as linear_chain
from rlr.analysis.linear import quadratic as quadratic
from rlr.chain import Chain
from rlr.estimators import Estimator
from rlr.models.base import Condition
from rlr.models.prediction import Prediction, slope
from rlr.rollout import Rollout, unconditional
from rlr.samplers import Sampler
from rlr.schedules import RectifiedFlow, Schedule


class Curved(Plane):
    """x̂_0 = W₂ tanh(W₁ (x, τ) + b₁): no closed form, so full backpropagation is the reference."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.hidden = nn.Linear(3, 4).double()
        self.out = nn.Linear(4, 2, bias=False).double()
        for p in self.parameters():
            p.data = 0.7 * torch.randn(p.shape, generator=generator, dtype=torch.float64)

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        tau = torch.full_like(x[:, :1], time)
        return self.out(torch.tanh(self.hidden(torch.cat((x, tau), 1))))


class Predicting(Curved):
    """A network F that predicts the noise, a velocity or the clean latent, as the function says."""

    def __init__(self, prediction: Prediction, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.prediction = prediction
        self.noise_schedule = schedule or self.noise_schedule

    def output(self, x: Tensor, time: float) -> Tensor:
        tau = torch.full_like(x[:, :1], time)
        return self.out(torch.tanh(self.hidden(torch.cat((x, tau), 1))))

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        return self.prediction(self.output(x, time), x, *self.noise_schedule.levels(time))

    def skip(self, time: float) -> float:
        return slope(self.prediction, *self.noise_schedule.levels(time))


def wavy(x: Tensor) -> Tensor:
    """A curved, bounded reward."""
    return torch.sin(2 * x[:, 0]) + torch.exp(-(x - TARGET).square().sum(1))


def flow_chain(sampler: Sampler) -> Chain:
    return Chain(Affine(RectifiedFlow()), sampler)


Reward = Callable[[Tensor], Tensor]
r"""A reward of points, from :math:`(B, 2)` to :math:`(B)`."""


def rollout(estimator: Estimator, chain: Chain, reward: Reward, batch: int = 4, seed: int = 0) -> Rollout:
    """Returns a rollout of points whose noises follow from the seed."""
    generator = torch.Generator().manual_seed(seed)
    noises = torch.randn((chain.steps + 1, batch, 2), generator=generator, dtype=torch.float64)
    return estimator.rollout(chain, ["x"] * batch, noises, unconditional(reward), seed)


def estimate(estimator: Estimator, chain: Chain, reward: Reward, batch: int, seed: int) -> Tensor:
    """Returns one estimate of the gradient, flat, as training would find it in ``.grad``."""
    chain.zero_grad()
    for term in estimator.terms(rollout(estimator, chain, reward, batch, seed)):
        term.loss.backward()
    parts = [torch.zeros_like(p) if p.grad is None else -p.grad for p in chain.model.trainable.values()]
    return torch.cat([p.flatten() for p in parts])


def monte_carlo(draw: Callable[[int], Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Returns the mean of ``count`` draws and its standard error."""
    draws = torch.stack([draw(seed) for seed in range(count)])
    return draws.mean(0), draws.std(0) / count**0.5


def deviation(
    estimator: Estimator, chain: Chain, reward: Reward, exact: Tensor, count: int = 100, batch: int = 256
) -> float:
    """Returns the largest deviation of the estimator's mean from ``exact``, in standard errors."""
    mean, error = monte_carlo(lambda seed: estimate(estimator, chain, reward, batch, seed), count)
    return ((mean - exact.flatten()) / error).abs().max().item()
