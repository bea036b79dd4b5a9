r"""First order: backpropagate the reward through the last :math:`k` steps, whole or truncated.

.. math:: \hat g = \nabla_\theta R\bigl(x_0(x_k, z_{k-1}, \dots, z_0; \theta)\bigr), \qquad x_k \text{ a constant}

estimates :math:`g_k + \dots + g_1` without bias. It is the gradient only for :math:`k = T`; for less, it is
*truncated backpropagation*: hardly any variance, and the bias of all that is cut off.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch

from rlr.chain import Chain, Trajectory
from rlr.estimators.base import Estimator, Objective, Term
from rlr.seeding import spawn


def first_order(chain: Chain, trajectory: Trajectory, objective: Objective, steps: int, weight: float = 1.0) -> Term:
    r"""Returns the first-order term of steps :math:`k` = ``steps`` … 1, times ``weight``."""
    x = chain.replay(trajectory, steps, 0).sample(trajectory.noises[0])
    rewards = objective(x)
    return Term("first_order", -weight * rewards.mean(), tuple(range(steps, 0, -1)), rewards.detach())


class Depth(ABC):
    r"""How many steps :math:`k` one update backpropagates through."""

    @abstractmethod
    def draw(self, steps: int, generator: torch.Generator) -> int:
        r"""Returns :math:`1 \leq k \leq T` for a chain of :math:`T` = ``steps``."""


class AllSteps(Depth):
    r"""Full backpropagation, :math:`k = T`."""

    def draw(self, steps: int, generator: torch.Generator) -> int:
        return steps


class UniformSteps(Depth):
    r"""A depth drawn anew for each update, uniform on ``low`` … ``high``.

    Args:
        low: The smallest depth, at least 1.
        high: The largest one; by default :math:`T`.
    """

    def __init__(self, low: int = 1, high: int | None = None) -> None:
        if low < 1 or (high is not None and high < low):
            raise ValueError(f"UniformSteps needs 1 <= low <= high, and got low={low}, high={high}")
        self.low = low
        self.high = high

    def draw(self, steps: int, generator: torch.Generator) -> int:
        high = min(self.high or steps, steps)
        return int(torch.randint(min(self.low, high), high + 1, (), generator=generator))


class FirstOrder(Estimator):
    r"""Reward backpropagation through the last steps of the chain (ReFL, DRaFT-K, AlignProp, VADER).

    References:
        | Directly Fine-Tuning Diffusion Models on Differentiable Rewards (Clark et al., 2024)
        | https://arxiv.org/abs/2309.17400
        | Aligning Text-to-Image Diffusion Models with Reward Backpropagation (Prabhudesai et al., 2023)
        | https://arxiv.org/abs/2310.03739

    Args:
        steps: The number :math:`k` of steps, or how it is drawn.
    """

    def __init__(self, steps: int | Depth = 1) -> None:
        if isinstance(steps, int) and steps < 1:
            raise ValueError(f"FirstOrder backpropagates through at least one step, and got steps={steps}")
        self.steps = steps

    @property
    def differentiable(self) -> bool:
        return True

    def check(self, chain: Chain) -> None:
        if isinstance(self.steps, int) and self.steps > chain.steps:
            raise ValueError(
                f"FirstOrder(steps={self.steps}) is longer than the chain of {chain.steps} steps; "
                f"set steps to {chain.steps} at most, or to AllSteps"
            )

    def losses(self, chain: Chain, trajectory: Trajectory, objective: Objective) -> Iterator[Term]:
        yield first_order(chain, trajectory, objective, self._depth(chain, trajectory.seed))

    def _depth(self, chain: Chain, seed: int) -> int:
        if isinstance(self.steps, int):
            return self.steps
        return self.steps.draw(chain.steps, torch.Generator().manual_seed(spawn(seed, 0)))
