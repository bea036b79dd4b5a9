r"""Preprocessing of images of any size to the square input of a network.

A reward has two named ways, :attr:`Preprocessing.official` and :attr:`Preprocessing.training`; each is a :class:`Fit`.
As in the authors' programs, resizes are antialiased unless stated otherwise, and their overshoot is not clamped.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from rlr.rewards.isolation import finite_rows

MEAN = (0.48145466, 0.4578275, 0.40821073)
"""The mean of red, green and blue in the training of CLIP's and BLIP's networks."""
STD = (0.26862954, 0.26130258, 0.27577711)
"""The standard deviation of red, green and blue."""


def to_bytes(samples: Tensor) -> Tensor:
    r"""Returns pixels in [0, 1] as the nearest of 0 … 255 on the CPU, with the shape of ``samples`` and no gradient.

    Raises:
        ValueError: If a pixel is NaN or infinite: no byte stands for it, and 0 would make it black.
    """
    samples = samples.detach()
    if not samples.isfinite().all():
        raise ValueError(
            f"expected finite pixels to round to bytes, got NaN or infinity in samples of shape {tuple(samples.shape)}; "
            "leave out the samples that finite_rows() marks as false"
        )
    return (samples * 255).round().clamp(0, 255).to(torch.uint8).cpu()


class Preprocessing(Enum):
    """The named ways of preprocessing."""

    official = "official"
    """The authors' scoring of image files, used for published tables."""
    training = "training"
    """The differentiable preprocessing of AlignProp, VADER and ReFL."""


class Fit(ABC):
    """A way to make square images of any images."""

    differentiable: bool = True
    """Whether the result has a gradient in the pixels."""

    @abstractmethod
    def __call__(self, samples: Tensor, size: int) -> Tensor:
        r"""Returns the square images.

        Args:
            samples: Pixels in [0, 1], with shape :math:`(B, 3, H, W)`.
            size: The side :math:`s` of the square.

        Returns:
            Pixels, in [0, 1] but for overshoot, with shape :math:`(B, 3, s, s)`.
        """


def floor_offset(surplus: int) -> int:
    """Returns the first pixel of a center crop in transformers and VADER: half the surplus, rounded down."""
    return surplus // 2


def even_offset(surplus: int) -> int:
    """Returns the first pixel of a center crop in torchvision: half the surplus, rounded half to even."""
    return round(surplus / 2)


@dataclass(frozen=True)
class Squash(Fit):
    """Resizes both sides to the square, without regard to the aspect ratio.

    Args:
        mode: The ``mode`` of :func:`torch.nn.functional.interpolate`.
        antialias: Whether a smaller image is an average of all pixels, as in all other ways here.
    """

    mode: str = "bilinear"
    antialias: bool = True

    def __call__(self, samples: Tensor, size: int) -> Tensor:
        return _resize(samples, (size, size), self.mode, self.antialias)


@dataclass(frozen=True)
class CropShortest(Fit):
    """Resizes the shorter side (bicubic) and crops the center.

    Args:
        offset: Maps the surplus of a side to the first pixel of the crop.
    """

    offset: Callable[[int], int] = floor_offset

    def __call__(self, samples: Tensor, size: int) -> Tensor:
        samples = _resize(samples, _shortest(samples.shape[-2:], size), "bicubic")
        top, left = (self.offset(side - size) for side in samples.shape[-2:])
        return samples[..., top : top + size, left : left + size]


@dataclass(frozen=True)
class PillowCropShortest(Fit):
    """:class:`CropShortest` by Pillow on images rounded to bytes, without a gradient.

    An image with a pixel that is not finite becomes a square of NaN.

    Args:
        offset: Maps the surplus of a side to the first pixel of the crop.
    """

    differentiable = False
    offset: Callable[[int], int] = floor_offset

    def __call__(self, samples: Tensor, size: int) -> Tensor:
        finite = finite_rows(samples).view(-1, 1, 1, 1)
        pixels = to_bytes(samples.where(finite, 0)).permute(0, 2, 3, 1).numpy()
        squares = torch.from_numpy(np.stack([self._square(Image.fromarray(image), size) for image in pixels]))
        return (squares.permute(0, 3, 1, 2).to(samples) / 255).where(finite, torch.nan)

    def _square(self, image: Image.Image, size: int) -> np.ndarray:
        height, width = _shortest((image.height, image.width), size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = self.offset(width - size), self.offset(height - size)
        return np.asarray(image.crop((left, top, left + size, top + size)))


@dataclass(frozen=True)
class PadLongest(Fit):
    """Resizes the longer side (bicubic) and pads the shorter side with black at both ends."""

    def __call__(self, samples: Tensor, size: int) -> Tensor:
        scale = size / max(samples.shape[-2:])
        height, width = (round(side * scale) for side in samples.shape[-2:])
        above, left = (size - height) // 2, (size - width) // 2
        samples = _resize(samples, (height, width), "bicubic")
        return F.pad(samples, (left, size - width - left, above, size - height - above))


def normalize_pixels(pixels: Tensor) -> Tensor:
    r"""Returns :math:`(x - \mathrm{MEAN}) / \mathrm{STD}` per channel, with the shape of ``pixels``, :math:`(*, 3, H, W)`."""
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std


def _shortest(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    height, width = shape
    short = min(shape)
    return int(size * height / short), int(size * width / short)


def _resize(samples: Tensor, shape: tuple[int, int], mode: str, antialias: bool = True) -> Tensor:
    if tuple(samples.shape[-2:]) == shape:
        return samples
    return F.interpolate(samples, shape, mode=mode, antialias=antialias, align_corners=False)


def check_range(samples: Tensor, label: str, slack: float) -> None:
    """Raises a ``ValueError`` that names the reward by its label if a pixel is outside of [0, 1] by more than ``slack``."""
    low, high = (value.item() for value in samples.detach().aminmax())
    if low < -slack or high > 1 + slack:
        raise ValueError(
            f"{label}: expected pixels in [0, 1], got [{low:.3g}, {high:.3g}]; map and clamp the pixels exactly once"
        )
