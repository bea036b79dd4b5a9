"""Noise in a window of steps, and none in the others."""

from copy import copy
from typing import Self

from torch import Tensor

from rlr.gaussian import Gaussian
from rlr.samplers.base import Sampler, preserve
from rlr.samplers.windows import Window
from rlr.schedules import Grid


class Windowed(Sampler):
    r"""Another sampler in a window of steps, and the deterministic DDIM step in all others.

    On a rectified flow the deterministic step is Euler's. Training places the window anew for each round of rollouts, with
    :meth:`in_round`; elsewhere, as in evaluations, it is that of the first round. Estimators with likelihood ratios train on
    the steps with noise, and have no terms of the others.

    Args:
        sampler: The other sampler.
        window: The steps in which it acts.
    """

    def __init__(self, sampler: Sampler, window: Window) -> None:
        super().__init__(sampler.steps)
        self.sampler = sampler
        self.window = window
        self.rounds = 0
        self.seed = 0

    def in_round(self, rounds: int, seed: int) -> Self:
        placed = copy(self)
        placed.rounds, placed.seed = rounds, seed
        return placed

    def noisy(self, grid: Grid) -> range:
        """Returns the steps of the window, from the first to the last; steps count down."""
        return self.window.place(grid.steps, self.rounds, self.seed)

    def std(self, t: int, grid: Grid) -> float:
        return self.sampler.std(t, grid) if t in self.noisy(grid) else 0.0

    def transition(self, denoised: Tensor, x: Tensor, t: int, grid: Grid) -> Gaussian:
        if t in self.noisy(grid):
            return self.sampler.transition(denoised, x, t, grid)
        return preserve(denoised, x, t, grid, 0.0)
