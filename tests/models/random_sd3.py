"""A small Stable Diffusion 3 with random weights, in the folder layout of diffusers."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from experiments.cost.shapes.text import t5_tokenizer
from tests.models.random_sd import tokenizer

WIDTH = 40
"""The width of T5's states, and of the transformer's text input."""


def transformer(**options: Any) -> SD3Transformer2DModel:
    settings: dict[str, Any] = {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "joint_attention_dim": WIDTH,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 28,
        "pos_embed_max_size": 16,
        "dual_attention_layers": (0,),
        "qk_norm": "rms_norm",
    }
    return SD3Transformer2DModel(**settings | options)


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def clip(hidden: int, projection: int, tokens: Any) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=hidden,
        intermediate_size=32,
        projection_dim=projection,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=tokens.model_max_length,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def t5(tokens: Any) -> T5EncoderModel:
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 4}
    return T5EncoderModel(T5Config(vocab_size=len(tokens), feed_forward_proj="gated-gelu", **sizes))


def write_random_sd3(folder: str | Path, seed: int = 0, **options: object) -> Path:
    """Writes a random Stable Diffusion 3 of 32 x 32 images (latents 4 x 16 x 16) and returns its folder.

    Args:
        folder: Where to write it.
        seed: Decides the weights; the global generator is left as it was.
        options: Settings of the scheduler, by default ``shift=3.0``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words, characters = tokenizer(), t5_tokenizer()
        network = transformer()
        for name, weight in network.named_parameters():
            # else the conditions hardly matter, since training starts there with small weights
            if name.endswith("linear.weight") or "proj_out" in name:
                weight.data = 0.2 * torch.randn(weight.shape)
        pipeline = StableDiffusion3Pipeline(
            transformer=network,
            scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0} | options),
            vae=vae(),
            text_encoder=clip(16, 12, words),
            tokenizer=words,
            text_encoder_2=clip(20, 16, words),
            tokenizer_2=words,
            text_encoder_3=t5(characters),
            tokenizer_3=characters,
        )
    pipeline.save_pretrained(folder)
    return Path(folder)
