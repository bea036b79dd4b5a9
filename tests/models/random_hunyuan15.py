"""A small HunyuanVideo 1.5 with random weights, in the folder layout of diffusers."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)
from transformers import ByT5Tokenizer, Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel, T5Config, T5EncoderModel

from tests.models.qwen_tokenizer import qwen_tokenizer
from tests.models.random_flux import excite

WIDTH = 24
"""The width of the language model's states."""
GLYPH_WIDTH = 16
"""The width of ByT5's states."""


def transformer() -> HunyuanVideo15Transformer3DModel:
    return HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        text_embed_2_dim=GLYPH_WIDTH,
        image_embed_dim=8,
        rope_axes_dim=(4, 6, 6),
        task_type="t2v",
    )


def vae() -> AutoencoderKLHunyuanVideo15:
    """Returns an autoencoder with a stride of 2 in time and 4 in space."""
    return AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=2,
    )


def language_model(vocabulary: int) -> Qwen2_5_VLTextModel:
    settings: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [1, 1, 2]},
    }
    return Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**settings))


def byt5(vocabulary: int) -> T5EncoderModel:
    sizes = {"d_model": GLYPH_WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(T5Config(vocab_size=vocabulary, feed_forward_proj="gated-gelu", **sizes))


def write_random_hunyuan15(folder: str | Path, seed: int = 0) -> Path:
    """Writes a random HunyuanVideo 1.5 with a stride of 2 in time and 4 in space and returns its folder.

    Args:
        folder: Where to write it.
        seed: Decides the weights; the global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words, characters, network = qwen_tokenizer(), ByT5Tokenizer(), transformer()
        excite(network, seed)
        pipeline = HunyuanVideo15Pipeline(
            text_encoder=language_model(len(words)),
            tokenizer=words,
            transformer=network,
            vae=vae(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
            text_encoder_2=byt5(len(characters)),
            tokenizer_2=characters,
            guider=ClassifierFreeGuidance(guidance_scale=6.0),
        )
    pipeline.save_pretrained(folder)
    return Path(folder)
