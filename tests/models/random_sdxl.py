"""A small Stable Diffusion XL with random weights, in the folder layout of diffusers."""

from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from tests.models.random_sd import tokenizer, vae
from tests.models.random_sd3 import clip


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(2, 1),
        attention_head_dim=(2, 4),
        cross_attention_dim=16 + 20,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
        norm_num_groups=8,
    )


def write_random_sdxl(
    folder: str | Path, seed: int = 0, scheduler: type = EulerDiscreteScheduler, **options: object
) -> Path:
    """Writes a random Stable Diffusion XL of 32 x 32 images (latents 4 x 8 x 8) and returns its folder.

    Args:
        folder: Where to write it.
        seed: Decides the weights; the global generator is left as it was.
        scheduler: The scheduler's class.
        options: Settings of the scheduler, beside those of the published model.
    """
    settings: dict[str, object] = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "timestep_spacing": "leading",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = tokenizer()
        pipeline = StableDiffusionXLPipeline(
            vae=vae(),
            text_encoder=CLIPTextModel(clip(16, 12, words).config),
            text_encoder_2=clip(20, 16, words),
            tokenizer=words,
            tokenizer_2=words,
            unet=unet(),
            scheduler=scheduler(**(settings | options)),
            add_watermarker=False,
        )
    pipeline.save_pretrained(folder)
    return Path(folder)
