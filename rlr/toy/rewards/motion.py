"""The exact check of the built-in world's videos as a black-box reward."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlr.rewards.base import Reward
from rlr.toy.world.motion import parse_video
from rlr.toy.world.tracker import CLAIMS, check_videos


class MotionCheck(Reward):
    r"""1 where the video shows and moves as its caption claims, else 0; nothing learned, so nothing to fool.

    Prompts must be captions of the built-in world's videos (:mod:`rlr.toy.world.motion`).

    Args:
        partial: Score the share of the caption's claims that are true instead, in [0, 1].
    """

    differentiable = False
    supports_images = False
    supports_video = True

    def __init__(self, partial: bool = False) -> None:
        super().__init__()
        self.partial = partial

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        r"""Returns one score a video.

        Args:
            samples: Pixels in [0, 1], with shape :math:`(B, F, 3, H, W)`.
            prompts: The :math:`B` prompts.

        Returns:
            The scores, with shape :math:`(B)`.

        Raises:
            ValueError: If the samples are images, or a prompt is no caption of a video.
        """
        if samples.ndim != 5:
            raise ValueError(
                f"MotionCheck got samples of shape {tuple(samples.shape)}; pass videos of shape (B, F, 3, H, W), and "
                "images to ExactCheck"
            )
        claims = check_videos(samples, [parse_video(prompt) for prompt in prompts])
        parts = torch.stack([claims[name] for name in CLAIMS if name != "all"])
        return (parts.nanmean(0) if self.partial else claims["all"]).to(samples)
