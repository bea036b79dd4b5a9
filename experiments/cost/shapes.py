"""Base models of given sizes with random weights: time and memory of a step do not depend on the weights."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from rlr.toy.pretraining.denoiser import DIFFUSION, build_text_encoder, build_unet
from rlr.toy.world.tokenizer import build_tokenizer

LATENT, SD14_WORDS, SD14_WIDTH = 4, 49408, 768


def tiny() -> StableDiffusionPipeline:
    """Returns the built-in model's networks: 32 × 32 pixels, latents 4 × 8 × 8."""
    tokens = build_tokenizer()
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        sample_size=32,
        mid_block_add_attention=False,
    )
    return _pipeline(build_unet((64, 128), 128), vae, build_text_encoder(tokens, 128), tokens, DIFFUSION)


def sd14() -> StableDiffusionPipeline:
    """Returns Stable Diffusion 1.4's networks: 512 × 512 pixels, latents 4 × 64 × 64, 860 M weights in the U-Net."""
    tokens = build_tokenizer()
    tokens.model_max_length = 77
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=SD14_WIDTH, attention_head_dim=8)
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    )
    text = CLIPTextConfig(
        vocab_size=SD14_WORDS,
        hidden_size=SD14_WIDTH,
        intermediate_size=4 * SD14_WIDTH,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    return _pipeline(unet, vae, CLIPTextModel(text), tokens, {**DIFFUSION, "prediction_type": "epsilon"})


SHAPES = {"tiny": tiny, "sd14": sd14}


def write(shape: str, folder: Path, dtype: torch.dtype) -> Path:
    """Writes the pipeline of a shape, with weights drawn from seed 0, and returns its folder."""
    torch.manual_seed(0)
    SHAPES[shape]().to(dtype).save_pretrained(folder)
    return folder


def _pipeline(unet: Any, vae: Any, text: Any, tokens: Any, diffusion: dict[str, Any]) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokens,
        unet=unet,
        scheduler=DDIMScheduler(**diffusion, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
