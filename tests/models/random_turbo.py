"""A LoRA with random weights in the format of T2V-Turbo's ``unet_lora.pt``, made without the code that reads it.

Its authors' program puts a LoRA into each ``nn.Linear``, ``nn.Conv2d`` and ``nn.Conv3d`` of their denoiser in the order of
``named_modules``, and saves the factors of each, ``lora_up.weight`` before ``lora_down.weight``, as a list. That order is the one
of the names in a recorded checkpoint; their ``time_cond_proj``, which no checkpoint has, is defined between ``fps_embedding`` and
``input_blocks``.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cmp_to_key
from itertools import combinations
from pathlib import Path

import torch
from torch import nn

from rlr.io.weights import blank
from rlr.models.videocrafter.architecture import Architecture
from rlr.models.videocrafter.keys import unet_layout
from tests.models.vectors import keys

UNET = "model.diffusion_model."
GUIDED = "time_cond_proj.weight"
RANK = 64
"""The published rank; a layer with fewer channels on one side has as many."""


def recorded(version: str = "t2v_512_v2.0") -> list[str]:
    """Returns the names of the denoiser's weights in the order of a recorded checkpoint."""
    return [name.removeprefix(UNET) for name in keys()[version] if name.startswith(UNET)]


@cache
def _before() -> frozenset[tuple[str, str]]:
    """Returns the pairs of names of which the first comes before the second in a module of the recorded checkpoint."""
    children: dict[str, dict[str, None]] = {}
    for name in recorded():
        parts = name.split(".")
        for depth, part in enumerate(parts):
            children.setdefault(".".join(parts[:depth]), {})[part] = None
    return frozenset(pair for found in children.values() for pair in combinations(found, 2))


def as_recorded(names: Iterable[str]) -> list[str]:
    """Returns the names of weights of a denoiser of other sizes in the order of the recorded one."""

    def compare(one: str, other: str) -> int:
        a, b = next(pair for pair in zip(one.split("."), other.split("."), strict=False) if pair[0] != pair[1])
        if a.isdigit():
            return int(a) - int(b)
        assert ((a, b) in _before()) is not ((b, a) in _before())
        return -1 if (a, b) in _before() else 1

    return sorted(names, key=cmp_to_key(compare))


def walked(names: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the weights that get a LoRA, in order, from the names of a checkpoint in order."""
    found: dict[str, tuple[int, ...]] = {}
    for name in names:
        if name == "input_blocks.0.0.weight":
            found[GUIDED] = (shapes[name][0], 256)
        if name.endswith(".weight") and len(shapes[name]) in (2, 4, 5):
            found[name] = tuple(shapes[name])
    return found


def walk(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the weights of a VideoCrafter2 that get a LoRA, in order."""
    state = unet_layout(architecture.unet).to_theirs(blank(architecture.build_unet).state_dict())
    shapes = {name: tuple(weight.shape) for name, weight in state.items()}
    return walked(as_recorded(shapes), shapes)


def random_factors(shapes: Iterable[Sequence[int]], rank: int = RANK, seed: int = 0) -> list[nn.Parameter]:
    """Returns up and down of each layer, as parameters, which is what the authors' program saves."""
    generator = torch.Generator().manual_seed(seed)
    factors = []
    for out, inside, *kernel in shapes:
        r = min(rank, out, inside)
        up, down = (out, r, *[1] * len(kernel)), (r, inside, *kernel)
        factors += [nn.Parameter(0.05 * torch.randn(shape, generator=generator)) for shape in (up, down)]
    return factors


def write_random_turbo(folder: Path, architecture: Architecture, rank: int = RANK) -> Path:
    """Writes ``unet_lora.pt`` for a VideoCrafter and returns the folder."""
    torch.save(random_factors(walk(architecture).values(), rank), folder / "unet_lora.pt")
    return folder
