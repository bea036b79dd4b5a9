r"""A chain whose gradient is known in closed form: an affine model, and the reward of a square.

With :math:`\hat x_0 = a x + b + c \tau` every transition of a sampler is affine, so all states stay normal, and
:math:`E[R]` of :math:`R(x) = -|x - y|^2` follows from the mean and the variance of :math:`x_0`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlr.chain import Chain
from rlr.models.base import Condition, DiffusionModel, Size
from rlr.samplers import DDIM, Sampler
from rlr.schedules import Grid, Schedule

TARGET = torch.tensor([1.0, -0.5], dtype=torch.float64)
r"""The :math:`y` of the reward."""


class Cosine(Schedule):
    """A variance-preserving schedule whose last state keeps a little noise, as Stable Diffusion's does."""

    def levels(self, time: float) -> tuple[float, float]:
        angle = 0.15 + 1.35 * time
        return math.cos(angle), math.sin(angle)

    def grid(self, steps: int) -> Grid:
        times = tuple(t / steps for t in range(steps + 1))
        alphas, sigmas = zip(*map(self.levels, times), strict=True)
        return Grid(times, alphas, sigmas)


class Plane(DiffusionModel):
    """Two-dimensional latents in float64, no prompts to speak of, the latent itself for pixels.

    Args:
        schedule: The noise schedule; by default :class:`Cosine`.
    """

    size = Size(1, 1)

    def __init__(self, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.noise_schedule = schedule or Cosine()

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return (2,)

    def schedule(self, size: Size) -> Schedule:
        return self.noise_schedule

    def encode(self, prompts: Sequence[str]) -> Condition:
        return Condition({"none": torch.zeros(len(prompts), 1, dtype=torch.float64)})

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        return x


class Affine(Plane):
    r"""Predicts :math:`\hat x_0 = a x + b + c \tau` with the three weights :math:`w = (a, b, c)`.

    Args:
        schedule: The noise schedule.
    """

    def __init__(self, schedule: Schedule | None = None) -> None:
        super().__init__(schedule)
        self.w = nn.Parameter(torch.tensor([0.5, 0.2, -0.3], dtype=torch.float64))

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        return affine(self.w, x, time)


def affine(w: Tensor, x: Tensor, time: float) -> Tensor:
    r"""Returns :math:`a x + b + c \tau`."""
    return w[0] * x + w[1] + w[2] * time


def quadratic(x: Tensor) -> Tensor:
    r"""Returns :math:`R(x) = -|x - y|^2`, with shape :math:`(B)`."""
    return -(x - TARGET).square().sum(1)


def linear_chain(steps: int = 6, sampler: Sampler | None = None, schedule: Schedule | None = None) -> Chain:
    r"""Returns the chain of the affine model, by default with DDIM and :math:`\eta = 1`."""
    return Chain(Affine(schedule), sampler or DDIM(steps, eta=1.0))


def exact_gradients(chain: Chain) -> Tensor:
    r"""Returns :math:`g_t` for :math:`t = 1, \dots, T` (row :math:`t - 1`) under the reward, with shape :math:`(T, 3)`.

    Mean :math:`m` and variance :math:`v` of :math:`x_t` obey :math:`m \leftarrow f(m)`, :math:`v \leftarrow k^2 v + \sigma^2`
    with :math:`f` the transition's mean and :math:`k` its slope; then :math:`E[R] = -|m - y|^2 - 2 v`. Each step has its
    own copy of the weights, so that one backward pass gives every :math:`g_t`.

    Args:
        chain: A chain of :class:`Affine`.
    """
    copies = chain.model.get_parameter("w").detach().repeat(chain.steps, 1).requires_grad_()
    m, v = torch.zeros(1, 2, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    for t in range(chain.steps, 0, -1):

        def f(x: Tensor, t: int = t) -> Tensor:
            return chain.sampler.transition(affine(copies[t - 1], x, chain.grid.times[t]), x, t, chain.grid).mean

        k = (f(torch.ones_like(m)) - f(torch.zeros_like(m)))[0, 0]
        m, v = f(m), k**2 * v + chain.std(t) ** 2
    value = -(m[0] - TARGET).square().sum() - 2 * v
    return torch.autograd.grad(value, copies)[0]
