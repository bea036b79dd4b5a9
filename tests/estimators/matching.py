"""A normal distribution whose optimal denoiser is known: the fixed points of forward-process methods are tested on it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rlr.analysis.linear import Cosine, Plane
from rlr.chain import Chain, Trajectory
from rlr.estimators.base import Estimator
from rlr.models.base import Condition
from rlr.rollout import Rollout, unconditional
from rlr.samplers import DDIM
from rlr.schedules import Schedule

T, STD = 5, 0.7
"""The steps of the grid, and the standard deviation of the samples."""

SLOPE = torch.tensor([0.4, -0.3], dtype=torch.float64)
r"""The :math:`k` of the linear reward."""


class Normal(Plane):
    r"""Predicts :math:`E[x_0 \mid x_t]` for :math:`x_0 \sim \mathcal{N}(w, s^2 I)`, with the trained weights :math:`w`.

    Args:
        schedule: The noise schedule.
    """

    def __init__(self, schedule: Schedule | None = None) -> None:
        super().__init__(schedule)
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        alpha, sigma = self.noise_schedule.levels(time)
        return (alpha * STD**2 * x + sigma**2 * self.w) / (alpha**2 * STD**2 + sigma**2)

    @contextmanager
    def reference(self) -> Iterator[None]:
        now = self.w.data
        self.w.data = torch.zeros_like(now)
        try:
            yield
        finally:
            self.w.data = now


def chain(w: Tensor | None = None, schedule: Schedule | None = None) -> Chain:
    """Returns a deterministic chain of the model with these weights."""
    model = Normal(schedule or Cosine())
    if w is not None:
        model.w.data = w.clone()
    return Chain(model, DDIM(T, eta=0.0))


def linear(x: Tensor) -> Tensor:
    r"""Returns the reward :math:`k \cdot x`, with shape :math:`(B)`."""
    return x @ SLOPE


def samples(chain: Chain, mean: Tensor, batch: int, seed: int, reward: Callable[[Tensor], Tensor] = linear) -> Rollout:
    """Returns a rollout whose final samples are normal with this mean, whatever the chain."""
    generator = torch.Generator().manual_seed(1000 + seed)
    states = torch.zeros(chain.steps + 1, batch, 2, dtype=torch.float64)
    states[0] = mean + STD * torch.randn(batch, 2, generator=generator, dtype=torch.float64)
    condition = chain.encode(["x"] * batch)
    return Rollout(chain, Trajectory(condition, states, states), unconditional(reward), ["x"] * batch, seed)


def gradient(estimator: Estimator, rollout: Rollout) -> Tensor:
    """Returns the gradient of the losses of one update, flat."""
    chain = rollout.chain
    chain.zero_grad()
    for terms in estimator.updates([rollout]):
        for term in terms:
            term.loss.backward()
        break
    return torch.cat([p.grad.flatten() for p in chain.model.trainable.values()])  # type: ignore[union-attr]


def deviation(estimator: Estimator, chain: Chain, mean: Tensor, count: int = 100, batch: int = 256) -> float:
    """Returns the largest deviation of the mean gradient from 0, in standard errors."""
    draws = torch.stack([gradient(estimator, samples(chain, mean, batch, seed)) for seed in range(count)])
    return (draws.mean(0) / draws.std(0) * count**0.5).abs().max().item()
