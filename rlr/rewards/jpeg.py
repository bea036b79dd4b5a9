r"""The size of an image's JPEG file: rewards without a gradient and without a network.

Pillow encodes the image, rounded to bytes, at quality 95. The size is in kB of 1000 bytes.

References:
    | Training Diffusion Models with Reinforcement Learning (Black et al., 2023), Section 5.1
    | https://arxiv.org/abs/2305.13301
"""

import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from rlr.rewards.base import Reward
from rlr.rewards.networks.preprocessing import to_bytes


def jpeg_sizes(samples: Tensor, quality: int) -> Tensor:
    r"""Returns the JPEG sizes in kB, with shape :math:`(B)`, of pixels in [0, 1], with shape :math:`(B, 3, H, W)`."""
    images = to_bytes(samples).permute(0, 2, 3, 1).numpy()
    sizes = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        sizes.append(buffer.tell() / 1000)
    return torch.tensor(sizes, dtype=samples.dtype, device=samples.device)


class JPEGIncompressibility(Reward):
    r"""The JPEG size in kB: higher for images full of detail.

    Args:
        quality: The quality of the encoder, in 1 … 95.
    """

    differentiable = False

    def __init__(self, quality: int = 95) -> None:
        super().__init__()
        self.quality = quality

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return jpeg_sizes(samples, self.quality)


class JPEGCompressibility(JPEGIncompressibility):
    r"""*Minus* the JPEG size in kB: higher for smooth images."""

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return -super().forward(samples, prompts)
