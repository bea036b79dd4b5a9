r"""AES: the aesthetic score of LAION, an affine map of an image's CLIP embedding.

.. math:: R(x) = w \cdot \frac{f(x)}{\|f(x)\|} + b

with the image tower :math:`f` of CLIP ViT-L/14; about 4 … 7, independent of the prompt. The published weights hold the map as
five linear layers without activations.

References:
    | CLIP+MLP Aesthetic Score Predictor (Schuhmann, 2022)
    | https://github.com/christophschuhmann/improved-aesthetic-predictor
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionModelWithProjection

from rlr.io.hub import Published, find
from rlr.io.weights import read_state
from rlr.rewards.networks.head import Head, build_head
from rlr.rewards.networks.network import NetworkReward
from rlr.rewards.networks.preprocessing import Fit, PillowCropShortest, Preprocessing, Squash
from rlr.rewards.networks.pretrained import pretrained

NORM, BIAS = 17.99562477643365, 5.236645844819847
r"""Length of :math:`w` and value of :math:`b` in the published head, which identify copies of it."""
HEADS = (
    # a copy in another file, whose checksum is not known
    Published("aesthetic-model.pth"),
    Published(
        "sac+logos+ava1-l14-linearMSE.pth",
        "sha256",
        "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    ),
)
_TEXT = ("text_model.", "text_projection.", "logit_scale")
"""The rest of a CLIP model."""


class Aesthetic(NetworkReward):
    r"""The aesthetic score.

    Args:
        path: The CLIP model, a folder in the layout of transformers or a hub id.
        head: The head: a file, a folder that holds it, or a hub id.
        preprocessing: ``official`` resizes bytes with Pillow and crops, ``training`` squashes (bilinear), with a
            gradient.
        chunk: The number of images to score at once.
        verify: Whether a head with a published name must be the published one: have its checksum where that is known,
            and amount to its affine map.

    Raises:
        FileNotFoundError: If there is no such model or head.
        ValueError: If the weights do not fit the networks, or a head with a published name is not the published one.
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
        if verify and file.name in {head.name for head in HEADS}:
            _check_map(self.head, file)
        self.clip = pretrained(CLIPVisionModelWithProjection, path, unused=_TEXT)
        self.size = self.clip.config.image_size

    @property
    def label(self) -> str:
        """The name in tables, ``AES``."""
        return "AES"

    def _score(self, pixels: Tensor, texts: Tensor) -> Tensor:
        return self.head(F.normalize(self.clip(pixel_values=pixels).image_embeds, dim=-1))

    def _encode(self, prompt: str) -> Tensor:
        return torch.empty(0)


def _check_map(head: Head, file: Path) -> None:
    weight, bias = head.folded()
    norm = weight.norm().item()
    if not (math.isclose(norm, NORM, rel_tol=1e-5) and math.isclose(bias.item(), BIAS, rel_tol=1e-5)):
        raise ValueError(
            f"{file} is not the published head (its w has length {norm:.6g} and its b is {bias.item():.6g}, theirs are "
            f"{NORM:.6g} and {BIAS:.6g}); download it again, or pass verify=False if the weights are meant to be others"
        )
