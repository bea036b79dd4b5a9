"""The interface of a sampler."""

from abc import ABC, abstractmethod
from typing import Self

from torch import Tensor

from rlr.gaussian import Gaussian
from rlr.schedules import Grid


class Sampler(ABC):
    r"""A discretized reverse process of :math:`T` steps.

    Args:
        steps: The number :math:`T \geq 1` of steps.
    """

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"{type(self).__name__}.steps: expected at least 1, got {steps}")
        self.steps = steps

    @abstractmethod
    def std(self, t: int, grid: Grid) -> float:
        r"""Returns the standard deviation of :math:`p(x_{t-1} \mid x_t)`, for :math:`t = 1, \dots, T`."""

    @abstractmethod
    def transition(self, denoised: Tensor, x: Tensor, t: int, grid: Grid) -> Gaussian:
        r"""Returns :math:`p(x_{t-1} \mid x_t)`.

        Args:
            denoised: The estimate :math:`\hat x_0`, with shape :math:`(B, *)`.
            x: The state :math:`x_t`, with shape :math:`(B, *)`.
            t: The step, :math:`1 \leq t \leq T`.
            grid: The noise levels of the chain.
        """

    def in_round(self, rounds: int, seed: int) -> Self:
        """Returns the sampler of the rollouts of a round; here the same in all.

        Args:
            rounds: The number of rounds before it.
            seed: The seed of the round, the same on all ranks.
        """
        return self


def preserve(denoised: Tensor, x: Tensor, t: int, grid: Grid, std: float) -> Gaussian:
    r"""Returns :math:`\mathcal{N}(\alpha_{t-1} \hat x_0 + \sqrt{\sigma_{t-1}^2 - \sigma^2} \, \hat z, \sigma^2 I)`."""
    noise = (x - grid.alphas[t] * denoised) / grid.sigmas[t]
    direction = max(grid.sigmas[t - 1] ** 2 - std**2, 0) ** 0.5
    return Gaussian(grid.alphas[t - 1] * denoised + direction * noise, std)


def check_flow(grid: Grid, t: int, owner: str) -> None:
    r"""Raises a ``ValueError`` unless :math:`\alpha_t + \sigma_t = 1`, as on a rectified flow."""
    if abs(grid.alphas[t] + grid.sigmas[t] - 1) > 1e-9:
        raise ValueError(f"{owner}: expected a rectified flow (α + σ = 1), got another schedule; use DDIM")
