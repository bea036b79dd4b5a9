"""Coefficients-preserving sampling."""

import math

from torch import Tensor

from rlr.gaussian import Gaussian
from rlr.samplers.base import Sampler, preserve
from rlr.schedules import Grid


class CPS(Sampler):
    r"""Coefficients-preserving sampling: DDIM with another standard deviation, as in later Flow-GRPO code.

    .. math:: \sigma = \sigma_{t-1} \sin(\eta \pi / 2), \qquad
        \mu = \alpha_{t-1} \hat x_0 + \sqrt{\sigma_{t-1}^2 - \sigma^2} \, \hat z

    The noise level of :math:`x_{t-1}` is that of the schedule, so that the marginals are preserved for every schedule.

    References:
        | Coefficients-Preserving Sampling for Reinforcement Learning with Flow Matching (Wang & Yu, 2025)
        | https://arxiv.org/abs/2509.05952

    Args:
        steps: The number :math:`T` of steps.
        noise_level: The level :math:`\eta \in [0, 1]`: 0 is deterministic, 1 replaces the whole noise.
    """

    def __init__(self, steps: int = 10, noise_level: float = 0.8) -> None:
        super().__init__(steps)
        if not 0 <= noise_level <= 1:
            raise ValueError(f"CPS.noise_level: expected a number in [0, 1], got {noise_level}")
        self.noise_level = noise_level

    def std(self, t: int, grid: Grid) -> float:
        return grid.sigmas[t - 1] * math.sin(self.noise_level * math.pi / 2)

    def transition(self, denoised: Tensor, x: Tensor, t: int, grid: Grid) -> Gaussian:
        return preserve(denoised, x, t, grid, self.std(t, grid))
