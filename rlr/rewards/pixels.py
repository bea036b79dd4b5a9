"""Pixels as programs outside of PyTorch read them: arrays of bytes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rlr.rewards.networks.preprocessing import check_range, to_bytes

Image = NDArray[np.uint8]
"""An RGB image, with shape (H, W, 3)."""


def to_images(samples: Tensor, prompts: Sequence[str], label: str, slack: float = 1e-2) -> list[Image]:
    r"""Returns each sample as 8-bit numbers: an image, with shape :math:`(H, W, 3)`, or a video, :math:`(F, H, W, 3)`.

    Args:
        samples: Pixels in [0, 1], with shape :math:`(B, 3, H, W)`, or :math:`(B, F, 3, H, W)` for videos.
        prompts: The :math:`B` prompts.
        label: What messages call the reward.
        slack: By how much a pixel may be outside of [0, 1].

    Raises:
        ValueError: If shapes or range are others.
    """
    if samples.ndim not in (4, 5) or samples.shape[-3] != 3 or len(samples) != len(prompts) or not len(prompts):
        raise ValueError(
            f"{label}: expected samples of shape (B, 3, H, W) or (B, F, 3, H, W) and B prompts, got shape "
            f"{tuple(samples.shape)} and {len(prompts)} prompts"
        )
    check_range(samples, label, slack)
    return list(to_bytes(samples).movedim(-3, -1).contiguous().numpy())
