"""A small Wan with random weights, in the folder layout of diffusers."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import UMT5Config, UMT5EncoderModel

from tests.models.random_sd3 import t5_tokenizer
from tests.models.random_zimage import excite

WIDTH = 24
"""The width of UMT5's states."""
UNIPC = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
"""The published settings of UniPC."""


def transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )


def vae(patch: int | None = None) -> AutoencoderKLWan:
    """Returns an autoencoder with a stride of 2 in time and space, as of Wan 2.1, or with patches besides, as of the 5B model."""
    return AutoencoderKLWan(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=4,
        dim_mult=[1, 2] if patch is None else [1, 1],
        num_res_blocks=1,
        temperal_downsample=[True],
        latents_mean=[0.3, -0.2, 0.1, 0.5],
        latents_std=[1.4, 0.8, 1.1, 2.0],
        is_residual=patch is not None,
        in_channels=3 * (patch or 1) ** 2,
        out_channels=3 * (patch or 1) ** 2,
        patch_size=patch,
        scale_factor_temporal=2,
        scale_factor_spatial=2 * (patch or 1),
    )


def umt5(vocabulary: int) -> UMT5EncoderModel:
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 3}
    return UMT5EncoderModel(UMT5Config(vocab_size=vocabulary, feed_forward_proj="gated-gelu", **sizes))


def write_random_wan(
    folder: str | Path, seed: int = 0, experts: int = 1, patch: int | None = None, unipc: bool = False
) -> Path:
    """Writes a random Wan with a stride of 2 in time and space and returns its folder.

    Args:
        folder: Where to write it.
        seed: Decides the weights; the global generator is left as it was.
        experts: The number of transformers, 1 or 2.
        patch: The patches of the autoencoder's pixels, as the 5B model has them; by default none.
        unipc: Whether the scheduler is UniPC; by default Euler's with the same shift.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        characters = t5_tokenizer()
        networks: list[Any] = [transformer() for _ in range(experts)]
        for number, network in enumerate(networks):
            excite(network, seed + number, ("to_out.0.weight", "text_embedder.linear_1.weight", "attn2.to_v.weight"))
        pipeline = WanPipeline(
            tokenizer=characters,
            text_encoder=umt5(len(characters)),
            vae=vae(patch),
            scheduler=UniPCMultistepScheduler(**UNIPC) if unipc else FlowMatchEulerDiscreteScheduler(shift=3.0),
            transformer=networks[0],
            transformer_2=networks[1] if experts == 2 else None,
            boundary_ratio=0.875 if experts == 2 else None,
            expand_timesteps=patch is not None,
        )
    pipeline.save_pretrained(folder)
    return Path(folder)
