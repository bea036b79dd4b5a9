"""What a critic sees of a sample and its prompt."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from zlib import crc32

import torch
from torch import Tensor
from torch.nn import functional as F

from rlr.rewards.networks.clip import CLIPReward
from rlr.rollout import Rollout


class CriticFeatures(ABC):
    """Features of latents and prompts, of which a critic learns the reward."""

    dimension: int
    """The number :math:`p` of features."""

    @abstractmethod
    def of(self, rollout: Rollout, x: Tensor) -> Tensor:
        r"""Returns the features of samples, with shape :math:`(B, p)`, in float32 and differentiable in ``x``.

        Args:
            rollout: The rollout, whose prompts are those of the samples.
            x: The latents :math:`x_0`, with shape :math:`(B, *)`.
        """


class ClipFeatures(CriticFeatures):
    r"""The features :math:`(u, v, u \odot v)` of a CLIP model: of the decoded image, of the prompt, and their products.

    Entries are scaled to a size of about 1. Features of a video are the mean over its frames.

    Args:
        model: The CLIP model, such as PickScore.
    """

    def __init__(self, model: CLIPReward) -> None:
        self.model = model
        self.dimension = 3 * model.dimension

    def of(self, rollout: Rollout, x: Tensor) -> Tensor:
        model = self.model.to(x.device)
        pixels = rollout.chain.model.decode(x)
        frames = pixels if pixels.ndim == 5 else pixels.unsqueeze(1)
        u = model.features(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).mean(1)
        v = model.text_features(rollout.prompts).to(u)
        d = u.shape[1]
        return torch.cat([d**0.5 * u, d**0.5 * v, d * u * v], 1).float()


class LatentFeatures(CriticFeatures):
    r"""The latents themselves, averaged over frames and over the cells of a grid, and the hashed words of the prompt.

    They need neither a further network nor the decoder. Each of the :math:`n` words of a prompt adds :math:`\pm 1 / \sqrt{n}` to
    one of the entries that stand for words.

    References:
        | Feature Hashing for Large Scale Multitask Learning (Weinberger et al., 2009)
        | https://arxiv.org/abs/0902.2206

    Args:
        channels: The number of channels of the latents: 4 of Stable Diffusion 1 and 2, 16 of Stable Diffusion 3.5 and FLUX.1.
        grid: The number of cells of the grid along each side, at least 1; latents without sides have none.
        words: The number of entries that stand for words, at least 0.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, channels: int, grid: int = 8, words: int = 64) -> None:
        if channels < 1 or grid < 1 or words < 0:
            raise ValueError(
                f"LatentFeatures: expected channels >= 1, grid >= 1 and words >= 0, got {channels}, {grid} and {words}"
            )
        self.channels = channels
        self.grid = grid
        self.words = words
        self.dimension = channels * grid**2 + words

    def of(self, rollout: Rollout, x: Tensor) -> Tensor:
        if x.shape[1] != self.channels:
            raise ValueError(
                f"LatentFeatures.channels: expected the {x.shape[1]} channels of the latents of "
                f"{type(rollout.chain.model).__name__}, got {self.channels}; set channels to {x.shape[1]}"
            )
        cells = self._cells(x.float().mean(2) if x.ndim == 5 else x.float())
        return torch.cat([cells, hashed(rollout.prompts, self.words).to(x.device)], 1)

    def _cells(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            x = x[..., None, None]
        return F.adaptive_avg_pool2d(x, self.grid).flatten(1)


def hashed(prompts: Sequence[str], size: int) -> Tensor:
    """Returns the hashed words of prompts, with shape (B, ``size``)."""
    rows = torch.zeros(len(prompts), size)
    for row, prompt in zip(rows, prompts, strict=True):
        words = prompt.lower().split()
        for code in (crc32(word.encode()) for word in words if size):
            row[code % size] += (1 - 2 * (code >> 31)) / len(words) ** 0.5
    return rows
