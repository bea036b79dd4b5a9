"""The published double de-normalization, to reproduce its scores."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlr.rewards.base import FrameSelection, Reward, Scores
from rlr.rewards.wrapper import Wrapper


class DoubledRange(Wrapper):
    r"""Another reward on pixels :math:`x / 2 + 1 / 2`, which treats an image in [0, 1] as one in [-1, 1] and maps it once more.

    The released code of RLR and the later one of AlignProp train on it: the reward sees washed-out images in [0.5, 1].
    Use it only to compare with them.

    Args:
        reward: The reward.
    """

    def __init__(self, reward: Reward) -> None:
        super().__init__(reward)
        self.supports_images, self.supports_video = reward.supports_images, reward.supports_video

    @property
    def label(self) -> str:
        return f"{self.reward.label}_doubled"

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.reward(_map_again(samples), prompts)

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Scores:
        return self.reward.score(_map_again(samples), prompts)

    def select_frames(self, frames: int, seed: int) -> FrameSelection:
        inner = self.reward.select_frames(frames, seed)
        return FrameSelection(inner.frames, lambda samples, prompts: inner.score(_map_again(samples), prompts))


def _map_again(samples: Tensor) -> Tensor:
    # in at least float32, as rewards compute
    return samples.to(torch.promote_types(samples.dtype, torch.float32)) / 2 + 0.5
