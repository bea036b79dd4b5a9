r"""PickScore: human preference as a CLIP similarity.

.. math:: R(x, c) = e^s \, \Bigl\langle \frac{f(x)}{\|f(x)\|}, \frac{g(c)}{\|g(c)\|} \Bigr\rangle

with image tower :math:`f`, text tower :math:`g` and logit scale :math:`s`, about 15 … 26 for the published weights.

References:
    | Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation (Kirstain et al., 2023)
    | https://arxiv.org/abs/2305.01569
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from rlr.rewards.base import Reward

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def resize_and_crop(samples: Tensor, size: int) -> Tensor:
    r"""Resizes the shorter side to ``size`` (bicubic, antialiased) and crops the centre, with shape :math:`(B, 3, s, s)`.

    The values are not clamped after the resize, so that the gradient is that of a linear map.
    """
    height, width = samples.shape[-2:]
    short = min(height, width)
    shape = [int(size * side / short) for side in (height, width)]
    if shape != [height, width]:
        samples = F.interpolate(samples, shape, mode="bicubic", antialias=True, align_corners=False)
    top, left = ((side - size) // 2 for side in shape)
    return samples[..., top : top + size, left : left + size]


class PickScore(Reward):
    r"""PickScore, or any CLIP model in the folder layout of transformers.

    Differentiable in the pixels: the preprocessing is PickScore's own, on tensors. Text features are computed once a
    prompt.

    Args:
        path: A folder, or a hub id.
        tokenizer: Where the tokenizer is, by default in ``path`` where that is a folder, else at LAION's model, which
            PickScore was tuned from.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, path: str = "yuvalkirstain/PickScore_v1", tokenizer: str | None = None) -> None:
        super().__init__()
        source = tokenizer or (path if Path(path).is_dir() else "laion/CLIP-ViT-H-14-laion2B-s32B-b79K")
        self.tokenizer = _load(CLIPTokenizer, source)
        self.clip = _load(CLIPModel, path, dtype=torch.float32).eval().requires_grad_(False)
        self.size = self.clip.config.vision_config.image_size
        self.length = self.clip.config.text_config.max_position_embeddings
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self._texts: dict[str, Tensor] = {}

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        texts = self._text_features(prompts)
        pixels = (resize_and_crop(samples.to(texts.dtype), self.size) - self.mean) / self.std
        images = F.normalize(self.clip.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
        return self.clip.logit_scale.exp() * (images * texts).sum(-1)

    def _text_features(self, prompts: Sequence[str]) -> Tensor:
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        if new:
            self._texts.update(zip(new, self._encode(new).cpu(), strict=True))
        return torch.stack([self._texts[prompt] for prompt in prompts]).to(self.clip.logit_scale.device)

    # an inference tensor in the cache could not take part in a later backward pass
    @torch.inference_mode(False)
    @torch.no_grad()
    def _encode(self, prompts: list[str]) -> Tensor:
        tokens = self.tokenizer(prompts, padding=True, truncation=True, max_length=self.length, return_tensors="pt").to(
            self.clip.logit_scale.device
        )
        return F.normalize(self.clip.get_text_features(**tokens).pooler_output, dim=-1)


class TinyPickScore(PickScore):
    """The built-in world's own preference model, shipped inside the package (32 pixels, scores about -100 … 100)."""

    def __init__(self) -> None:
        super().__init__(str(files("rlr") / "assets" / "tiny_pickscore"))


def _load(kind: Any, source: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(source, **options)
    except OSError as error:
        raise FileNotFoundError(
            f"no {kind.__name__} can be loaded from {source!r}; give a local folder that holds one in the layout of "
            "transformers, or a hub id while there is a network"
        ) from error
