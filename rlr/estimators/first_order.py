r"""First order: backpropagates the reward through the last :math:`k` steps, of all or of some.

.. math:: \hat g = \nabla_\theta R\bigl(x_0(x_k, z_{k-1}, \dots, z_0; \theta)\bigr), \qquad x_k \text{ a constant}

estimates :math:`g_k + \dots + g_1` without bias. It estimates the whole gradient only for :math:`k = T`. With
fewer steps it is *truncated backpropagation*: a small variance, and the bias of the steps that are left out.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from rlr.chain import Chain, Evaluation
from rlr.estimators.base import Term
from rlr.estimators.sample_clip import ClippingEstimator, SampleClip, reward_slope
from rlr.rollout import Rollout
from rlr.seeding import Stream


def first_order(
    rollout: Rollout,
    steps: int,
    weight: float = 1.0,
    first: Evaluation | None = None,
    clip: SampleClip | None = None,
    slope: Tensor | None = None,
) -> Term:
    r"""Returns the first-order term of steps :math:`k` = ``steps`` … 1, times ``weight``.

    Args:
        rollout: The rollout.
        steps: The number :math:`k` of steps.
        weight: A factor on the term.
        first: The evaluation of the network in :math:`x_k`, where it is known.
        clip: Bounds the gradient :math:`\partial R / \partial x_0` of each sample; None does not.
        slope: Takes the place of :math:`\partial R / \partial x_0`, with the shape of :math:`x_0`.
    """
    covered = tuple(range(steps, 0, -1))
    if slope is not None or clip is not None:
        slope = reward_slope(rollout) if slope is None else slope
        slope = slope if clip is None else clip(0, slope)
        pathwise = (slope * rollout.replay_sample(steps, first=first)).flatten(1).sum(1)
        return Term("first_order", -weight * pathwise.mean(), covered)
    rewards = rollout.score_recorded(rollout.replay_sample(steps, first=first))
    return Term("first_order", -weight * rewards.mean(), covered)


class Depth(ABC):
    r"""The number :math:`k` of steps through which one update backpropagates."""

    @abstractmethod
    def draw(self, steps: int, generator: torch.Generator) -> int:
        r"""Returns :math:`1 \leq k \leq T` for a chain of :math:`T` = ``steps``."""


class AllSteps(Depth):
    r"""Full backpropagation, :math:`k = T`."""

    def draw(self, steps: int, generator: torch.Generator) -> int:
        return steps


class UniformSteps(Depth):
    r"""A depth drawn for each update, uniform on ``low`` … ``high``.

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


class GaussianSteps(Depth):
    r"""A depth drawn for each update from a normal distribution, rounded up, and drawn again while not in 1 … T - 1.

    AlignProp's later code draws the first step with gradient of 50, :math:`\lfloor \mathcal{N}(42, 5^2) \rfloor`, which is the
    default here.

    Args:
        mean: The mean, before rounding.
        std: The standard deviation.
    """

    def __init__(self, mean: float = 8.0, std: float = 5.0) -> None:
        if not (mean > 0 and std > 0):
            raise ValueError(f"GaussianSteps needs mean > 0 and std > 0, and got {mean} and {std}")
        self.mean = mean
        self.std = std

    def draw(self, steps: int, generator: torch.Generator) -> int:
        if self.mean - 5 * self.std > steps:
            raise ValueError(
                f"GaussianSteps(mean={self.mean}, std={self.std}) hardly ever draws a depth within a chain of {steps} steps; "
                "lower its mean"
            )
        depth = 0
        # a chain of one step has the depth 1 only
        while not 1 <= depth <= max(steps - 1, 1):
            depth = math.ceil(self.mean + self.std * torch.randn((), generator=generator).item())
        return depth


class FirstOrder(ClippingEstimator):
    r"""Reward backpropagation through the last steps of the chain (DRaFT, DRaFT-K, VADER, the later code of AlignProp).

    References:
        | Directly Fine-Tuning Diffusion Models on Differentiable Rewards (Clark et al., 2024)
        | https://arxiv.org/abs/2309.17400
        | Aligning Text-to-Image Diffusion Models with Reward Backpropagation (Prabhudesai et al., 2023)
        | https://arxiv.org/abs/2310.03739

    Args:
        steps: The number :math:`k` of steps, or the distribution from which it is drawn.
        weight: A factor on the loss. It has no effect on Adam's steps, unless gradients are clipped to a norm.
        clip: Bounds the gradient of the reward of each sample; by default it is not bounded.
    """

    def __init__(self, steps: int | Depth = 1, weight: float = 1.0, clip: SampleClip | None = None) -> None:
        if isinstance(steps, int) and steps < 1:
            raise ValueError(f"FirstOrder backpropagates through at least one step, and got steps={steps}")
        super().__init__(clip)
        self.steps = steps
        self.weight = weight

    @property
    def differentiable(self) -> bool:
        return True

    def check(self, chain: Chain) -> None:
        if isinstance(self.steps, int) and self.steps > chain.steps:
            raise ValueError(
                f"FirstOrder(steps={self.steps}) is longer than the chain of {chain.steps} steps; "
                f"set steps to {chain.steps} at most, or to AllSteps"
            )

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        yield first_order(rollout, self._depth(rollout), self.weight, clip=self.clip)

    def _depth(self, rollout: Rollout) -> int:
        if isinstance(self.steps, int):
            return self.steps
        return self.steps.draw(rollout.chain.steps, rollout.generator(Stream.DEPTH))
