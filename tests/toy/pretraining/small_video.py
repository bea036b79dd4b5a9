"""A text-to-video model in training, small enough for laws about its training."""

from dataclasses import replace

import pytest

from rlr.models.videocrafter.architecture import Architecture, TextConfig, VAEConfig
from rlr.models.videocrafter.network import UNetConfig
from rlr.toy.pretraining import video
from rlr.toy.world.tokenizer import LENGTH

CONFIG = UNetConfig(16, (1, 2), 1, (1,), num_head_channels=8, context_dim=16, norm_groups=8)
ORIGINAL = video.architecture


def small(vocabulary: int, scale_factor: float) -> Architecture:
    """The architecture with smaller parts; its autoencoder is ``Autoencoder(channels=(8, 8, 8))``."""
    return replace(
        ORIGINAL(vocabulary, scale_factor),
        unet=CONFIG,
        text=TextConfig(vocabulary, 16, 2, 2, LENGTH, 2.0),
        vae=VAEConfig(8, (1, 1, 1), num_res_blocks=1, norm_groups=8, mid_attention=False),
    )


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every :class:`~rlr.toy.pretraining.video.VideoDenoiser` small."""
    monkeypatch.setattr(video, "architecture", small)
