r"""ImageReward: human preference predicted by a text encoder that attends to the image.

.. math:: R(x, c) = \frac{h(T(c, V(x))_\mathrm{[CLS]}) - \mu}{\sigma}

with BLIP's vision tower :math:`V`, its text encoder :math:`T` (which attends to the image), an affine head :math:`h`,
and the mean :math:`\mu` and standard deviation :math:`\sigma` over the authors' test set; about -2 … 2, and × 100 in some
tables.

References:
    | ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation (Xu et al., 2023)
    | https://arxiv.org/abs/2304.05977
"""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from rlr.io.hub import Published, find
from rlr.io.weights import build, read_json, read_state, warn_unread
from rlr.rewards.networks.head import build_head
from rlr.rewards.networks.network import NetworkReward
from rlr.rewards.networks.preprocessing import CropShortest, Fit, PillowCropShortest, Preprocessing, even_offset
from rlr.rewards.networks.pretrained import pretrained

MEAN = 0.16717362830052426
"""The mean over the authors' test set."""
STD = 1.0333394966054072
"""The standard deviation over it."""
LENGTH = 35
"""The number of tokens of a prompt that the network reads."""
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
}
"""The vision tower, for :class:`transformers.BlipVisionConfig`."""
TEXT = {
    "vocab_size": 30524,
    "hidden_size": 768,
    "encoder_hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    # otherwise transformers builds no cross-attention
    "is_decoder": True,
}
"""The text encoder, for :class:`transformers.BlipTextConfig`."""

_RENAMED = (
    ("blip.visual_encoder.cls_token", "vision.embeddings.class_embedding"),
    ("blip.visual_encoder.pos_embed", "vision.embeddings.position_embedding"),
    ("blip.visual_encoder.patch_embed.proj.", "vision.embeddings.patch_embedding."),
    ("blip.visual_encoder.norm.", "vision.post_layernorm."),
    ("blip.visual_encoder.blocks.", "vision.encoder.layers."),
    ("blip.text_encoder.", "text."),
    ("mlp.", "head."),
)
_IN_A_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
}
_UNUSED = ("blip.text_encoder.embeddings.position_ids", "blip.vision_proj.", "blip.text_proj.")


def convert(state: Mapping[str, Tensor], source: Path | str = "ImageReward.pt") -> dict[str, dict[str, Tensor]]:
    """Splits the weights of ``ImageReward.pt`` by module and renames them to the names of transformers.

    Args:
        state: The weights under their authors' names.
        source: The file of the weights, for the warning.

    Returns:
        The state dicts of the modules ``vision``, ``text`` and ``head``; keys that none of them has are left out, with a
        warning where they are not known to be unused.
    """
    modules: dict[str, dict[str, Tensor]] = {"vision": {}, "text": {}, "head": {}}
    foreign = []
    for key, value in state.items():
        if key.startswith(_UNUSED):
            continue
        module, _, name = _rename(key).partition(".")
        if module in modules:
            modules[module][name] = value
        else:
            foreign.append(key)
    warn_unread(source, "ImageReward", foreign)
    return modules


def _rename(key: str) -> str:
    old, new = next(((old, new) for old, new in _RENAMED if key.startswith(old)), ("", ""))
    key = new + key.removeprefix(old)
    block = re.fullmatch(r"(vision\.encoder\.layers\.\d+\.)(norm[12]|attn\.qkv|attn\.proj)(\..*)", key)
    return block[1] + _IN_A_BLOCK[block[2]] + block[3] if block else key


class ImageReward(NetworkReward):
    r"""ImageReward on the BLIP modules of transformers.

    Args:
        path: A file of weights, a folder that holds ``ImageReward.pt``, or a hub id.
        tokenizer: The tokenizer, a folder or a hub id.
        architecture: A JSON file with ``vision_config`` and ``text_config`` in the format of transformers; by default
            the architecture of the published weights.
        preprocessing: ``official`` resizes bytes with Pillow, ``training`` is the same on tensors, with a gradient.
        chunk: The number of images to score at once.
        cache: The number of prompts whose features are cached.
        verify: Whether a file with a published name must have the published checksum, where one is known.
    """

    fits: ClassVar[Mapping[Preprocessing, Fit]] = {
        Preprocessing.official: PillowCropShortest(even_offset),
        Preprocessing.training: CropShortest(even_offset),
    }
    scales = MappingProxyType({"x100": 100.0})
    length = LENGTH

    def __init__(
        self,
        path: str = "zai-org/ImageReward",
        tokenizer: str = "google-bert/bert-base-uncased",
        architecture: str | None = None,
        preprocessing: Preprocessing | Fit = Preprocessing.training,
        chunk: int = 32,
        cache: int = 4096,
        verify: bool = True,
    ) -> None:
        super().__init__(preprocessing, chunk, cache)
        config = read_json(architecture) if architecture else {"vision_config": VISION, "text_config": TEXT}
        file = find(path, [Published("ImageReward.pt")], verify)
        self._build(config, convert(read_state(file), file), file)
        self.tokenizer = pretrained(BertTokenizer, tokenizer)
        # two tokens of BLIP, which matter to a score only if a prompt contains them
        self.tokenizer.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)

    def _build(self, config: dict[str, Any], weights: dict[str, dict[str, Tensor]], file: Path) -> None:
        vision, text = BlipVisionConfig(**config["vision_config"]), BlipTextConfig(**config["text_config"])
        self.vision = build(lambda: BlipVisionModel(vision), weights["vision"], file)
        self.text = build(lambda: BlipTextModel(text, add_pooling_layer=False), weights["text"], file)
        self.head = build_head(weights["head"], file)
        self.size = config["vision_config"]["image_size"]

    def _score(self, pixels: Tensor, texts: Tensor) -> Tensor:
        # not pooler_output: transformers applies the norm twice to it
        image = self.vision(pixel_values=pixels).last_hidden_state
        ids, mask = texts.unbind(1)
        text = self.text(input_ids=ids, attention_mask=mask, encoder_hidden_states=image)
        return (self.head(text.last_hidden_state[:, 0]) - MEAN) / STD

    def _encode(self, prompt: str) -> Tensor:
        """Returns token ids and mask: the text encoder attends to the image, so a text alone has no features."""
        tokens = self.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        return torch.cat([tokens.input_ids, tokens.attention_mask])

    def _is_cut(self, prompt: str) -> bool:
        return len(self.tokenizer(prompt, verbose=False).input_ids) > self.length
