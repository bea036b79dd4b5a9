r"""The size of a picture's JPEG file: black-box rewards that need no network.

The picture is rounded to bytes and encoded by Pillow at quality 95; the size counts in kB of 1000 bytes.

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
    pictures = to_bytes(samples).permute(0, 2, 3, 1).numpy()
    sizes = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
        sizes.append(buffer.tell() / 1000)
    return torch.tensor(sizes, dtype=samples.dtype, device=samples.device)


class JPEGIncompressibility(Reward):
    r"""The JPEG size in kB: higher for pictures full of detail.

    Args:
        quality: The quality of the encoder, 1 … 95.
    """

    differentiable = False

    def __init__(self, quality: int = 95) -> None:
        super().__init__()
        self.quality = quality

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return jpeg_sizes(samples, self.quality)


class JPEGCompressibility(JPEGIncompressibility):
    r"""*Minus* the JPEG size in kB: higher for smooth pictures."""

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return -super().forward(samples, prompts)
