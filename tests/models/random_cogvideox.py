"""A small CogVideoX with random weights, in the folder layout of diffusers."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)

from tests.models.random_flux import excite
from tests.models.random_sd3 import WIDTH, t5, t5_tokenizer

TOKENS = 96
"""How many tokens of a prompt the transformer reads."""


def transformer(rotary: bool, patches: int | None) -> CogVideoXTransformer3DModel:
    return CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=16,
        text_embed_dim=WIDTH,
        num_layers=2,
        # 1.5 has positions for all sizes up to that of training
        sample_width=16 if patches is None else 40,
        sample_height=8 if patches is None else 40,
        sample_frames=5,
        patch_size=2,
        patch_size_t=patches,
        patch_bias=patches is None,
        temporal_compression_ratio=2,
        max_text_seq_length=TOKENS,
        use_rotary_positional_embeddings=rotary,
    )


def vae() -> AutoencoderKLCogVideoX:
    """Returns an autoencoder with a stride of 2 in time and space."""
    return AutoencoderKLCogVideoX(
        block_out_channels=(8, 8),
        down_block_types=("CogVideoXDownBlock3D",) * 2,
        up_block_types=("CogVideoXUpBlock3D",) * 2,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        temporal_compression_ratio=2,
        sample_height=64,
        sample_width=64,
    )


def write_random_cogvideox(
    folder: str | Path, seed: int = 0, rotary: bool = False, patches: int | None = None, **options: object
) -> Path:
    """Writes a random CogVideoX with a stride of 2 in time and space and returns its folder.

    Args:
        folder: Where to write it.
        seed: Decides the weights; the global generator is left as it was.
        rotary: Whether positions are rotations, as in the 5B models, or sinusoids, as in the 2B model.
        patches: How many latent frames a token has, 2 in CogVideoX 1.5; by default one.
        options: Settings of the scheduler, in the place of those of the 2B model.
    """
    settings: dict[str, object] = {
        "clip_sample": False,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "snr_shift_scale": 3.0,
        "timestep_spacing": "trailing",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        characters, network = t5_tokenizer(), transformer(rotary, patches)
        excite(network, seed)
        pipeline = CogVideoXPipeline(
            tokenizer=characters,
            text_encoder=t5(characters),
            vae=vae(),
            transformer=network,
            scheduler=CogVideoXDDIMScheduler(**settings | options),
        )
    pipeline.save_pretrained(folder)
    return Path(folder)
