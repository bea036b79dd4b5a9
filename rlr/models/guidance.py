"""Classifier-free guidance as a wrapper that is itself a model."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor

from rlr.models.base import Condition, DiffusionModel


class Guidance(DiffusionModel):
    r"""Classifier-free guidance, written for denoised estimates:

    .. math:: \hat x_0 = \hat x_0(x_\tau, \varnothing)
        + s \bigl(\hat x_0(x_\tau, c) - \hat x_0(x_\tau, \varnothing)\bigr)

    It equals guidance of the network's own output, whether :math:`\epsilon` or :math:`v`: the estimate is
    :math:`\hat x_0 = a x_\tau + b \cdot \mathrm{output}` with the same :math:`a, b` (of :math:`\tau` alone) for both
    prompts, and an affine map commutes with a combination whose weights :math:`1 - s` and :math:`s` add up to 1.

    Both estimates come from one call on ``cat([x, x])``, the prompts' half first; :math:`s = 1` asks for the prompts'
    only.

    References:
        | Classifier-Free Diffusion Guidance (Ho & Salimans, 2021)
        | https://arxiv.org/abs/2207.12598

    Args:
        model: The base model.
        scale: The scale :math:`s \geq 0`; 1 is no guidance.
        negative: The prompt :math:`\varnothing` to lead away from.
    """

    def __init__(self, model: DiffusionModel, scale: float = 7.5, negative: str = "") -> None:
        super().__init__()
        if scale < 0:
            raise ValueError(f"a guidance scale must not be negative, and {scale} is; 1 is no guidance")
        self.model = model
        self.scale = scale
        self.negative = negative
        self.shape = model.shape
        self.schedule = model.schedule
        self.frames, self.fps = model.frames, model.fps

    def reference(self) -> AbstractContextManager[None]:
        return self.model.reference()

    def export(self, folder: str | Path) -> None:
        self.model.export(folder)

    def encode(self, prompts: Sequence[str]) -> Condition:
        r"""Returns the condition of :math:`B` prompts, each tensor with shape :math:`(B, 2, *)`: prompt, negative."""
        positive = self.model.encode(prompts)
        if self.scale == 1:
            return positive
        negative = self.model.encode([self.negative] * len(prompts))
        return Condition({name: torch.stack([c, negative.tensors[name]], 1) for name, c in positive.tensors.items()})

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        if self.scale == 1:
            return self.model.denoise(x, time, condition)
        both = condition.map(lambda c: c.transpose(0, 1).flatten(0, 1))
        positive, negative = self.model.denoise(torch.cat([x, x]), time, both).chunk(2)
        return negative + self.scale * (positive - negative)

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        return self.model.decode(x, frames)
