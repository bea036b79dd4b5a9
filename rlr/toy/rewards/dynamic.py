"""The dynamic degree of the built-in world's clips: whether anything moves, whatever was asked for."""

from collections.abc import Sequence

from torch import Tensor

from rlr.rewards.base import Reward
from rlr.toy.world.tracker import track


class DynamicCheck(Reward):
    r"""1 where anything in the video moves, grows or shrinks, else 0; the mean over videos is a dynamic degree.

    It is found by the exact check's tracker. VBench's dimension of that name measures optical flow, and its prompts, not
    this, say what should move.
    """

    differentiable = False
    supports_images = False
    supports_video = True

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        r"""Returns one score a video.

        Args:
            samples: Pixels in [0, 1], with shape :math:`(B, F, 3, H, W)`.
            prompts: The :math:`B` prompts, which do not matter.

        Returns:
            The scores, with shape :math:`(B)`.

        Raises:
            ValueError: If the samples are images.
        """
        if samples.ndim != 5:
            raise ValueError(
                f"DynamicCheck got samples of shape {tuple(samples.shape)}; pass videos of shape (B, F, 3, H, W)"
            )
        return samples.new_tensor([float(any(thing.dynamic for thing in things)) for things in track(samples)])
