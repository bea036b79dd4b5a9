"""Classifier-free guidance as a wrapper that is itself a model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from rlr.models.base import Condition, DiffusionModel
from rlr.models.wrapper import ModelWrapper


class Scale(ABC):
    """A guidance scale that depends on the network's time."""

    @abstractmethod
    def at(self, time: float) -> float:
        r"""Returns the scale :math:`s(\tau) \geq 0`."""


class Interval(Scale):
    r"""Guidance within an interval of times only: :math:`s` for ``start`` :math:`\leq \tau \leq` ``stop``, 1 elsewhere.

    References:
        | Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models
          (Kynkäänniemi et al., 2024)
        | https://arxiv.org/abs/2404.07724

    Args:
        scale: The scale :math:`s \geq 0`.
        start: The first time, 0 … 999 for Stable Diffusion, 0 … 1 for a rectified flow.
        stop: The last time.
    """

    def __init__(self, scale: float, start: float, stop: float) -> None:
        if not start <= stop:
            raise ValueError(f"Interval: expected start <= stop, got start={start} and stop={stop}")
        self.scale = _check(scale)
        self.start = start
        self.stop = stop

    def at(self, time: float) -> float:
        return self.scale if self.start <= time <= self.stop else 1.0


class Switched(Scale):
    r"""One scale for times :math:`\tau \geq b` and another one below, as the two stages of Wan 2.2 have.

    Args:
        scale: The scale for :math:`\tau \geq b`.
        below: The scale for :math:`\tau < b`.
        boundary: The time :math:`b`, 0.875 for Wan 2.2.
    """

    def __init__(self, scale: float, below: float, boundary: float) -> None:
        self.scale = _check(scale)
        self.below = _check(below)
        self.boundary = boundary

    def at(self, time: float) -> float:
        return self.scale if time >= self.boundary else self.below


class Guidance(ModelWrapper):
    r"""Classifier-free guidance, written for denoised estimates:

    .. math:: \hat x_0 = \hat x_0(x_\tau, \varnothing)
        + s \bigl(\hat x_0(x_\tau, c) - \hat x_0(x_\tau, \varnothing)\bigr)

    It equals guidance of the network's own output, whether :math:`\epsilon` or :math:`v`: the estimate is
    :math:`\hat x_0 = a x_\tau + b \cdot \mathrm{output}` with the same :math:`a, b` (of :math:`\tau` alone) for both
    prompts, and an affine map commutes with a combination whose weights :math:`1 - s` and :math:`s` add up to 1.

    Both estimates come from one call on ``cat([x, x])``, the prompts' half first, or from two calls; :math:`s = 1`
    evaluates the prompts only.

    References:
        | Classifier-Free Diffusion Guidance (Ho & Salimans, 2021)
        | https://arxiv.org/abs/2207.12598

    Args:
        model: The base model.
        scale: The scale :math:`s \geq 0`, or one that depends on time; 1 is no guidance.
        negative: The prompt :math:`\varnothing` to lead away from.
        batched: Whether both estimates come from one call, which takes twice the memory of two calls.
    """

    def __init__(
        self, model: DiffusionModel, scale: float | Scale = 7.5, negative: str = "", batched: bool = True
    ) -> None:
        super().__init__(model)
        self.scale = scale if isinstance(scale, Scale) else _check(scale)
        self.negative = negative
        self.batched = batched

    def encode(self, prompts: Sequence[str]) -> Condition:
        r"""Returns the condition of :math:`B` prompts, each tensor with shape :math:`(B, 2, *)`: prompt, negative."""
        positive = self.model.encode(prompts)
        if self.scale == 1:
            return positive
        return Condition.stack([positive, self.model.encode([self.negative] * len(prompts))])

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        if self.scale == 1:
            return self.model.denoise(x, time, condition)
        scale = self.scale.at(time) if isinstance(self.scale, Scale) else self.scale
        if scale == 1:
            return self.model.denoise(x, time, condition.map(lambda c: c[:, 0]))
        positive, negative = self._estimates(x, time, condition)
        return self.combine(x, positive, negative, scale)

    def combine(self, x: Tensor, positive: Tensor, negative: Tensor, scale: float) -> Tensor:
        """Returns the guided estimate from those of the prompt and of the negative prompt, all with the shape of ``x``."""
        return negative + scale * (positive - negative)

    def _estimates(self, x: Tensor, time: float, condition: Condition) -> tuple[Tensor, ...]:
        if self.batched:
            both = condition.map(lambda c: c.transpose(0, 1).flatten(0, 1))
            return self.model.denoise(torch.cat([x, x]), time, both).chunk(2)
        halves = condition.map(lambda c: c[:, 0]), condition.map(lambda c: c[:, 1])
        return tuple(self.model.denoise(x, time, half) for half in halves)


def _check(scale: float) -> float:
    if not scale >= 0:
        raise ValueError(f"Guidance's scale must not be negative, and {scale} is; 1 is no guidance")
    return scale
