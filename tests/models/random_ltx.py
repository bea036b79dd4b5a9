"""A small LTX-Video with random weights, in the folder layout of diffusers."""

from pathlib import Path

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel

from tests.models.random_flux import excite
from tests.models.random_sd3 import WIDTH, t5, t5_tokenizer

SCHEDULER = {
    "use_dynamic_shifting": True,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 16,
    "max_image_seq_len": 512,
    "shift_terminal": 0.1,
}
"""The published settings, of fewer tokens."""


def transformer() -> LTXVideoTransformer3DModel:
    return LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=WIDTH,
    )


def vae(seed: int, timed: bool, noisy: bool = False) -> AutoencoderKLLTXVideo:
    """Returns an autoencoder with a stride of 2 in time and 8 in space, with statistics of its own."""
    network = AutoencoderKLLTXVideo(
        latent_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("LTXVideoDownBlock3D",) * 2,
        decoder_block_out_channels=(8, 8),
        layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, False),
        decoder_spatio_temporal_scaling=(True, False),
        decoder_inject_noise=(noisy, False, False),
        downsample_type=("conv", "conv"),
        upsample_residual=(False, False),
        upsample_factor=(1, 1),
        timestep_conditioning=timed,
    )
    generator = torch.Generator().manual_seed(seed)
    network.latents_mean.copy_(torch.randn(4, generator=generator))
    network.latents_std.copy_(0.5 + torch.rand(4, generator=generator))
    return network


def write_random_ltx(folder: str | Path, seed: int = 0, timed: bool = False, noisy: bool = False) -> Path:
    """Writes a random LTX-Video with a stride of 2 in time and 8 in space and returns its folder.

    Args:
        folder: Where to write it.
        seed: Decides the weights; the global generator is left as it was.
        timed: Whether the autoencoder is conditioned on a time, as from 0.9.1 on.
        noisy: Whether the decoder adds noise, as that of 0.9.1 does.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        characters, network = t5_tokenizer(), transformer()
        excite(network, seed)
        pipeline = LTXPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
            vae=vae(seed, timed, noisy),
            text_encoder=t5(characters),
            tokenizer=characters,
            transformer=network,
        )
    pipeline.save_pretrained(folder)
    return Path(folder)
