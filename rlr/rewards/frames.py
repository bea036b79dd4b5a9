r"""An image reward on frames of a video.

.. math:: R(x, c) = \frac{1}{k} \sum_{f \in S} R_\mathrm{image}(x_f, c)

over :math:`k` chosen frames :math:`S`. An update may see fewer of them, drawn so that the mean over draws is the same.

References:
    | Video Diffusion Alignment via Reward Gradients (Prabhudesai et al., 2024): one random frame
    | https://arxiv.org/abs/2407.08737
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlr.rewards.base import FrameSelection, Reward, Scores
from rlr.rewards.wrapper import Wrapper


class FrameChoice(ABC):
    """Chooses frames, the same for every video of a batch."""

    @abstractmethod
    def __call__(self, frames: int) -> list[int]:
        """Returns the numbers of those of ``frames`` frames whose mean is the score of a video."""

    def draw(self, frames: int, seed: int) -> list[int]:
        """Returns the numbers of those that one update sees: by default the same."""
        return self(frames)


@dataclass(frozen=True)
class EvenlySpaced(FrameChoice):
    """The middle frames of ``count`` equal stretches; of one stretch, the middle of the video.

    Args:
        count: How many.
    """

    count: int

    def __call__(self, frames: int) -> list[int]:
        if not 1 <= self.count <= frames:
            raise ValueError(f"EvenlySpaced({self.count}) got a video of {frames} frames; choose 1 … {frames} of them")
        return [(2 * i + 1) * frames // (2 * self.count) for i in range(self.count)]


@dataclass(frozen=True)
class AllFrames(FrameChoice):
    """Every frame."""

    def __call__(self, frames: int) -> list[int]:
        return list(range(frames))


@dataclass(frozen=True)
class RandomFrame(AllFrames):
    """One frame an update, any with the same chance, which is unbiased for the mean over all frames."""

    def draw(self, frames: int, seed: int) -> list[int]:
        return [int(torch.randint(frames, (), generator=torch.Generator().manual_seed(seed)))]


class FrameReward(Wrapper):
    r"""The mean of an image reward over chosen frames of each video, each frame with its own video's prompt.

    Args:
        reward: The image reward.
        choice: Which frames, by default a random one.
    """

    supports_images = False
    supports_video = True

    def __init__(self, reward: Reward, choice: FrameChoice | None = None) -> None:
        super().__init__(reward)
        if not reward.supports_images:
            raise ValueError(
                f"FrameReward wraps a reward of images, and {reward.label} scores videos; pass {reward.label} without it"
            )
        self.choice = choice or RandomFrame()

    @property
    def label(self) -> str:
        """That of the image reward."""
        return self.reward.label

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.score(samples, prompts).values

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Scores:
        r"""Returns one score a video; parts have the shape :math:`(B, k)`.

        Args:
            samples: Pixels in [0, 1], with shape :math:`(B, F, 3, H, W)`.
            prompts: The :math:`B` prompts.

        Returns:
            The scores, with shape :math:`(B)`.

        Raises:
            ValueError: If the samples are no videos of the prompts.
        """
        if samples.ndim != 5 or samples.shape[2] != 3 or len(samples) != len(prompts):
            raise ValueError(
                f"FrameReward got samples of shape {tuple(samples.shape)} and {len(prompts)} prompts; pass videos of "
                "shape (B, F, 3, H, W) and B prompts"
            )
        return self._mean(samples[:, self.choice(samples.shape[1])], prompts)

    def select_frames(self, frames: int, seed: int) -> FrameSelection:
        return FrameSelection(self.choice.draw(frames, seed), self._mean)

    def _mean(self, frames: Tensor, prompts: Sequence[str]) -> Scores:
        repeated = [prompt for prompt in prompts for _ in range(frames.shape[1])]
        scores = self.reward.score(frames.flatten(0, 1), repeated)
        parts = {name: part.view(frames.shape[:2]) for name, part in scores.parts.items()}
        return replace(scores, values=scores.values.view(frames.shape[:2]).mean(1), parts=parts)
