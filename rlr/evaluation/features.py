"""Vectors by which images and videos are compared."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from rlr.rewards.networks.clip import CLIPReward


class Features(ABC):
    """Maps images to vectors whose distance stands for that of the images."""

    @abstractmethod
    def __call__(self, pixels: Tensor) -> Tensor:
        r"""Returns the features, with shape :math:`(B, D)`, of images in [0, 1] with shape :math:`(B, 3, H, W)`."""

    def to(self, device: torch.device) -> None:
        """Moves the networks among the attributes to a device."""
        for value in vars(self).values():
            if isinstance(value, nn.Module):
                value.to(device)


def describe(features: Features, pixels: Tensor) -> Tensor:
    r"""Returns the features of images or of videos; the squared distance of two videos is the mean over their frames.

    Args:
        features: The features of images.
        pixels: Pixels in [0, 1], with shape :math:`(B, 3, H, W)` or :math:`(B, F, 3, H, W)`.

    Returns:
        The features, with shape :math:`(B, D)`, or :math:`(B, F D)` of videos.
    """
    if pixels.ndim == 4:
        return features(pixels)
    return features(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2]).flatten(1) / math.sqrt(pixels.shape[1])


class Colors(Features):
    r"""Average colors on grids, by default of 1, 2, 4 and 8 cells per side: no network that alignment could have fooled.

    The averages of a grid are divided by its side, so that :math:`\|f(a) - f(b)\|^2` is the sum over the grids of the mean squared
    difference of colors.

    Args:
        sides: The sides of the grids.
    """

    def __init__(self, sides: Sequence[int] = (1, 2, 4, 8)) -> None:
        self.sides = tuple(sides)

    def __call__(self, pixels: Tensor) -> Tensor:
        return torch.cat([adaptive_avg_pool2d(pixels, side).flatten(1) / side for side in self.sides], 1)


class CLIPFeatures(Features):
    r"""The image encoder of a CLIP reward: unit vectors, so that distances are in [0, 2].

    Args:
        reward: A reward that has such an encoder, such as ``PickScore`` or ``CLIPScore``.
    """

    def __init__(self, reward: CLIPReward) -> None:
        self.reward = reward

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        return self.reward.to(pixels.device).features(pixels.float())
