r"""AES: the aesthetic score of LAION, an affine map of a picture's CLIP embedding.

.. math:: R(x) = w \cdot \frac{f(x)}{\|f(x)\|} + b

with the image tower :math:`f` of CLIP ViT-L/14; about 4 … 7, and blind to the prompt. The map is stored as five layers
without activations.

References:
    | CLIP+MLP Aesthetic Score Predictor (Schuhmann, 2022)
    | https://github.com/christophschuhmann/improved-aesthetic-predictor
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionModelWithProjection

from rlr.rewards.head import build_head
from rlr.rewards.network import NetworkReward
from rlr.rewards.preprocessing import Fit, PillowCropShortest, Preprocessing, Squash
from rlr.weights import Published, find, pretrained, read_state

HEADS = (
    Published("aesthetic-model.pth"),
    Published(
        "sac+logos+ava1-l14-linearMSE.pth",
        "sha256",
        "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    ),
)


class Aesthetic(NetworkReward):
    r"""The aesthetic score.

    Args:
        path: The CLIP model, a folder in the layout of transformers or a hub id.
        head: The head: a file, a folder that holds it, or a hub id.
        preprocessing: ``official`` resizes bytes with Pillow and crops, ``training`` squashes (bilinear), with a
            gradient.
        chunk: How many pictures to score at once.
        verify: Whether a file with a published name must have the published checksum.
    """

    fits: ClassVar[Mapping[Preprocessing, Fit]] = {
        Preprocessing.official: PillowCropShortest(),
        Preprocessing.training: Squash("bilinear"),
    }

    def __init__(
        self,
        path: str = "openai/clip-vit-large-patch14",
        head: str = "trl-lib/ddpo-aesthetic-predictor",
        preprocessing: Preprocessing | Fit = Preprocessing.training,
        chunk: int = 32,
        verify: bool = True,
    ) -> None:
        super().__init__(preprocessing, chunk, cache=0)
        file = find(head, HEADS, verify)
        self.head = build_head(read_state(file), file)
        self.clip = pretrained(CLIPVisionModelWithProjection, path)
        self.size = self.clip.config.image_size

    @property
    def label(self) -> str:
        """The name in tables, ``AES``."""
        return "AES"

    def _score(self, pixels: Tensor, texts: Tensor) -> Tensor:
        return self.head(F.normalize(self.clip(pixel_values=pixels).image_embeds, dim=-1))

    def _encode(self, prompts: list[str]) -> Tensor:
        return torch.empty(len(prompts), 0)
