"""The size of Stable Diffusion 3.5 medium."""

from typing import Any

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

from experiments.cost.shapes.base import Shape
from experiments.cost.shapes.text import clip, t5, t5_tokenizer, words
from rlr.models import LoRA, StableDiffusion3
from rlr.models.base import DiffusionModel
from rlr.rewards import Brightness
from rlr.samplers import FlowSDE

SIDE = 512
"""The pixels of a side, as Flow-GRPO trains."""


def sd35() -> StableDiffusion3Pipeline:
    """Returns Stable Diffusion 3.5 medium's networks: 512 × 512 pixels, latents 16 × 64 × 64, 2.2 billion weights."""
    tokens, letters = words(), t5_tokenizer()
    return StableDiffusion3Pipeline(
        transformer=transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=clip(768, 12, tokens),
        tokenizer=tokens,
        text_encoder_2=clip(1280, 20, tokens),
        tokenizer_2=tokens,
        text_encoder_3=t5(letters),
        tokenizer_3=letters,
    )


def transformer() -> SD3Transformer2DModel:
    """Returns the transformer by its published configuration."""
    return SD3Transformer2DModel(
        sample_size=128,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=24,
        attention_head_dim=64,
        num_attention_heads=24,
        joint_attention_dim=4096,
        caption_projection_dim=1536,
        pooled_projection_dim=2048,
        pos_embed_max_size=384,
        dual_attention_layers=tuple(range(13)),
        qk_norm="rms_norm",
    )


def vae() -> AutoencoderKL:
    """Returns the autoencoder of 16 channels by its published configuration."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=16,
        sample_size=1024,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _model(path: str, dtype: Any) -> DiffusionModel:
    return StableDiffusion3(path, dtype=dtype, size=SIDE, trainable=LoRA(32, 64))


def _sampler(steps: int) -> FlowSDE:
    return FlowSDE(steps, noise_level=0.7)


SD35 = Shape(sd35, _model, _sampler, Brightness, guidance=4.5, batch=4, steps=10, dtype="bfloat16")
