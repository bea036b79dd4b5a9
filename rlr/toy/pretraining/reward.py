"""Pretraining of the built-in world's learned reward in PickScore's format: a tiny CLIP of transformers."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from rlr.toy.pretraining.contrastive import Contrastive
from rlr.toy.world.tokenizer import LENGTH, build_tokenizer


def build_clip(tokenizer: CLIPTokenizer, width: int, layers: int, text_layers: int) -> CLIPModel:
    """A CLIP for 32-pixel images in patches of 4."""
    tower: dict[str, Any] = {"hidden_size": width, "intermediate_size": 3 * width, "num_attention_heads": 4}
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": LENGTH, "num_hidden_layers": text_layers}
    vision = {"image_size": 32, "patch_size": 4, "num_hidden_layers": layers}
    return CLIPModel(CLIPConfig(text_config=tower | text | special, vision_config=tower | vision, projection_dim=width))


class Reward(Contrastive):
    """The similarity of :class:`Contrastive`, with the towers of transformers."""

    def __init__(
        self,
        autoencoder: str,
        width: int = 96,
        layers: int = 4,
        text_layers: int = 2,
        lr: float = 1e-3,
        warmup: int = 200,
        seed: int = 0,
    ) -> None:
        """``autoencoder`` is the folder of the autoencoder whose artifacts the reward must see through."""
        tokenizer = build_tokenizer()
        super().__init__(build_clip(tokenizer, width, layers, text_layers), autoencoder, lr, warmup, seed)
        self.tokenizer = tokenizer
        self.save_hyperparameters()

    def images(self, clip: Any, pixels: Tensor) -> Tensor:
        """Unit features of images in [0, 1], (B, D)."""
        hidden = clip.vision_model(pixel_values=pixels * 2 - 1).pooler_output
        return normalize(clip.visual_projection(hidden), dim=-1)

    def texts(self, clip: Any, captions: list[str]) -> Tensor:
        """Unit features of captions, (B, D)."""
        tokens = self.tokenizer(captions, padding=True, max_length=LENGTH, truncation=True, return_tensors="pt")
        hidden = clip.text_model(**tokens.to(self.device)).pooler_output
        return normalize(clip.text_projection(hidden), dim=-1)

    def export(self, folder: Path) -> None:
        """Writes the averaged CLIP in half precision with its processor, as PickScore is laid out."""
        size = {"height": 32, "width": 32}
        images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
        renormalised(self.average["clip"]).to(torch.float16).save_pretrained(folder)
        CLIPProcessor(image_processor=images, tokenizer=self.tokenizer).save_pretrained(folder)


@torch.no_grad()
def renormalised(clip: Any) -> Any:
    r"""Returns a copy of a CLIP of pixels :math:`2x - 1` that reads them as CLIP's processor normalizes them.

    With :math:`y = (x - m) / s`, :math:`2x - 1 = 2s \, y + (2m - 1)`: the factor goes into the patches' filters, the offset
    into the positions, to which each patch is added.
    """
    clip = copy.deepcopy(clip)
    mean, std = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
    embeddings = clip.vision_model.embeddings
    filters = embeddings.patch_embedding.weight
    embeddings.position_embedding.weight[1:] += torch.einsum("ochw,c->o", filters, (2 * mean - 1).to(filters))
    filters.mul_((2 * std).to(filters)[:, None, None])
    return clip
