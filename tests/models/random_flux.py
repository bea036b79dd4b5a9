"""A small FLUX.1 with random weights, in the folder layout of diffusers."""

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import nn
from transformers import CLIPTextModel

from tests.models.random_sd import tokenizer
from tests.models.random_sd3 import WIDTH, clip, t5, t5_tokenizer, vae


def transformer(guidance: bool) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=16,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 6, 6),
    )


def excite(network: nn.Module, seed: int) -> None:
    """Draws the linear maps anew, with large weights: else the conditions hardly matter."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) / layer.in_features**0.5


def write_random_flux(folder: str | Path, seed: int = 0, guidance: bool = True, **options: object) -> Path:
    """Writes a random FLUX.1 (latents 4 x 16 x 16 for 32 x 32 images) and returns its folder.

    Args:
        folder: Where to write it.
        seed: Decides the weights; the global generator is left as it was.
        guidance: Whether the network reads the guidance scale.
        options: Settings of the scheduler, by default those of FLUX.1-dev.
    """
    settings: dict[str, object] = {
        "shift": 3.0,
        "use_dynamic_shifting": True,
        "base_image_seq_len": 16,
        "max_image_seq_len": 256,
        "base_shift": 0.5,
        "max_shift": 1.15,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words, characters = tokenizer(), t5_tokenizer()
        network = transformer(guidance)
        excite(network, seed)
        pipeline = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(**settings | options),
            vae=vae(),
            text_encoder=CLIPTextModel(clip(16, 12, words).config),
            tokenizer=words,
            text_encoder_2=t5(characters),
            tokenizer_2=characters,
            transformer=network,
        )
    pipeline.save_pretrained(folder)
    return Path(folder)
