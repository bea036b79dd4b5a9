"""Chains whose gradients are known: the laws of the estimators are tested on them."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rlr.chain import Chain
from rlr.estimators import Estimator, Objective
from rlr.models.base import Condition, DiffusionModel
from rlr.samplers import DDIM, Sampler
from rlr.schedules import Grid, RectifiedFlow, Schedule

TARGET = torch.tensor([1.0, -0.5], dtype=torch.float64)


class Cosine(Schedule):
    """A variance-preserving schedule whose last state keeps a little noise, as Stable Diffusion's does."""

    def levels(self, time: float) -> tuple[float, float]:
        angle = 0.15 + 1.35 * time
        return math.cos(angle), math.sin(angle)

    def grid(self, steps: int) -> Grid:
        times = tuple(t / steps for t in range(steps + 1))
        alphas, sigmas = zip(*map(self.levels, times), strict=True)
        return Grid(times, alphas, sigmas)


class Toy(DiffusionModel):
    """Two-dimensional latents, float64, no prompts to speak of, the latent itself for pixels."""

    shape = (2,)

    def __init__(self, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.schedule = schedule or Cosine()

    def encode(self, prompts: Sequence[str]) -> Condition:
        return Condition({"none": torch.zeros(len(prompts), 1, dtype=torch.float64)})

    def decode(self, x: Tensor) -> Tensor:
        return x


class Affine(Toy):
    """x̂_0 = a x + b + c τ: with it the chain stays Gaussian, and E[R] of a quadratic R is closed."""

    def __init__(self, schedule: Schedule | None = None) -> None:
        super().__init__(schedule)
        self.w = nn.Parameter(torch.tensor([0.5, 0.2, -0.3], dtype=torch.float64))

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        return affine(self.w, x, time)


class Curved(Toy):
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


def affine(w: Tensor, x: Tensor, time: float) -> Tensor:
    return w[0] * x + w[1] + w[2] * time


def quadratic(x: Tensor) -> Tensor:
    """R = −|x − c|²."""
    return -(x - TARGET).square().sum(1)


def wavy(x: Tensor) -> Tensor:
    """A curved, bounded reward."""
    return torch.sin(2 * x[:, 0]) + torch.exp(-(x - TARGET).square().sum(1))


def linear_chain(steps: int = 6, sampler: Sampler | None = None, schedule: Schedule | None = None) -> Chain:
    return Chain(Affine(schedule), sampler or DDIM(steps, eta=1.0))


def flow_chain(sampler: Sampler) -> Chain:
    return Chain(Affine(RectifiedFlow()), sampler)


def exact_gradients(chain: Chain) -> Tensor:
    """Returns g_t for t = 1 … T (row t − 1) of the affine chain under the quadratic reward, by moments.

    Mean m and variance v of x_t obey m ← f(m), v ← k² v + σ² with f the transition's mean and k its slope; then
    E[R] = −|m − c|² − 2 v. Each step has its own copy of the weights, so one backward gives every g_t.
    """
    copies = chain.model.w.detach().repeat(chain.steps, 1).requires_grad_()
    m, v = torch.zeros(1, 2, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    for t in range(chain.steps, 0, -1):

        def f(x: Tensor, t: int = t) -> Tensor:
            return chain.sampler.transition(affine(copies[t - 1], x, chain.grid.times[t]), x, t, chain.grid).mean

        k = (f(torch.ones_like(m)) - f(torch.zeros_like(m)))[0, 0]
        m, v = f(m), k**2 * v + chain.std(t) ** 2
    value = -(m[0] - TARGET).square().sum() - 2 * v
    return torch.autograd.grad(value, copies)[0]


def estimate(estimator: Estimator, chain: Chain, objective: Objective, batch: int, seed: int) -> Tensor:
    """Returns one estimate of the gradient, flat, as training would find it in ``.grad``."""
    generator = torch.Generator().manual_seed(seed)
    noises = torch.randn((chain.steps + 1, batch, 2), generator=generator, dtype=torch.float64)
    chain.zero_grad()
    trajectory = estimator.rollout(chain, ["x"] * batch, noises, seed)
    for term in estimator.losses(chain, trajectory, objective):
        term.loss.backward()
    parts = [torch.zeros_like(p) if p.grad is None else -p.grad for p in chain.model.trainable.values()]
    return torch.cat([p.flatten() for p in parts])


def monte_carlo(draw: Callable[[int], Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Returns the mean of ``count`` draws and its standard error."""
    draws = torch.stack([draw(seed) for seed in range(count)])
    return draws.mean(0), draws.std(0) / count**0.5


def deviation(
    estimator: Estimator, chain: Chain, objective: Objective, exact: Tensor, count: int = 400, batch: int = 64
) -> float:
    """Returns the largest deviation of the estimator's mean from ``exact``, in standard errors."""
    mean, error = monte_carlo(lambda seed: estimate(estimator, chain, objective, batch, seed), count)
    return ((mean - exact.flatten()) / error).abs().max().item()
