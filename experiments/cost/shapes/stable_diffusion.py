"""The sizes of the built-in model and of Stable Diffusion 1.4."""

from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from experiments.cost.shapes.base import Shape
from rlr.models import LoRA, StableDiffusion
from rlr.models.base import DiffusionModel
from rlr.rewards import Brightness
from rlr.samplers import DDIM
from rlr.toy.pretraining.denoiser import DIFFUSION, build_text_encoder, build_unet
from rlr.toy.world.tokenizer import build_tokenizer

WORDS, WIDTH = 49408, 768


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
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=WIDTH, attention_head_dim=8)
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    )
    text = CLIPTextConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    return _pipeline(unet, vae, CLIPTextModel(text), tokens, {**DIFFUSION, "prediction_type": "epsilon"})


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


def _model(path: str, dtype: Any) -> DiffusionModel:
    return StableDiffusion(path, dtype=dtype, trainable=LoRA())


def _sampler(steps: int) -> DDIM:
    return DDIM(steps, eta=1.0)


TINY = Shape(tiny, _model, _sampler, Brightness, guidance=4.0, batch=8, steps=20, dtype="float32")
SD14 = Shape(sd14, _model, _sampler, Brightness, guidance=4.0, batch=4, steps=20, dtype="bfloat16")
