"""A small VideoCrafter with random weights, in its authors' layout."""

from pathlib import Path
from typing import Any

import torch

from rlr.models.videocrafter.architecture import Architecture, TextConfig, VAEConfig
from rlr.models.videocrafter.checkpoint import export_official
from rlr.models.videocrafter.network import UNetConfig
from rlr.toy.world.tokenizer import LENGTH, open_clip_tokenizer, write_merges


def small(**changes: Any) -> Architecture:
    """Clips of 4 frames of 16 x 16 pixels, latents of shape (4, 4, 8, 8)."""
    settings: dict[str, Any] = {
        "unet": UNetConfig(16, (1, 2), 1, (1,), num_head_channels=4, context_dim=16, norm_groups=8),
        "vae": VAEConfig(8, (1, 2), 1, norm_groups=8, mid_attention=False),
        "text": TextConfig(open_clip_tokenizer().vocab_size, 16, 2, 2, LENGTH, 2.0),
        "parameterization": "v",
        "size": (16, 16),
        "frames": 4,
        "fps": 8.0,
    }
    return Architecture(**settings | changes)


def write_random_vc(folder: Path, architecture: Architecture, seed: int = 0, **options: Any) -> Path:
    """Writes random weights, with none of the layers at zero at which training starts, and returns the folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = [make() for make in architecture.makers.values()]
        for weight in (weight for part in parts for weight in part.parameters()):
            if not weight.any():
                weight.data = 0.05 * torch.randn(weight.shape)
    write_merges(folder / "merges.txt.gz")
    export_official(folder, *parts, architecture, **options)
    return folder
