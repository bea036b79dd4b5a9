"""A small ViCLIP with random weights, as a file in its authors' format."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from rlr.rewards import ViCLIP, ViCLIPSizes
from rlr.rewards.networks.preprocessing import Preprocessing
from rlr.rewards.networks.viclip_network import ViCLIPNetwork

SMALL = ViCLIPSizes(
    image=28, patch=14, width=32, layers=2, heads=2, text_width=16, text_layers=2, text_heads=1, dimension=24
)
"""Four patches of each of eight frames."""


def randomize(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draws all weights, with which scores of different videos and prompts differ clearly, and returns the network."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        scale = 0.4 if re.search(r"embedding|proj$|projection$", name) else 0.15
        weight.data = scale * torch.randn(weight.shape, generator=generator)
        if re.search(r"ln_\w+\.weight", name):
            weight.data += 1
    return network.eval().requires_grad_(False)


def write(network: nn.Module, folder: Path) -> Path:
    """Writes the weights as the authors do, and returns the file."""
    file = folder / "ViClip-InternVid-10M-FLT.pth"
    torch.save({"model": network.state_dict()}, file)
    return file


def write_random_viclip(folder: Path) -> Path:
    """Writes random weights and returns the file."""
    return write(randomize(ViCLIPNetwork(SMALL)), folder)


def viclip(preprocessing: Preprocessing = Preprocessing.training) -> ViCLIP:
    with TemporaryDirectory() as folder:
        return ViCLIP(str(write_random_viclip(Path(folder))), SMALL, preprocessing)
