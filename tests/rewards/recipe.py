"""Weights and cotangents by a formula: the same numbers on every machine, from nothing but a name."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

CHUNK = 1 << 22


def recipe_fill(key: str, shape: Sequence[int], seed: str, offset: float, scale: float) -> Tensor:
    """``offset + scale * (u - 1/2)`` with u uniform by SplitMix64, which begins at the SHA-256 of seed and key."""
    values = np.empty(int(np.prod(shape)), np.float32)
    start = np.uint64(int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "little"))
    for low in range(0, values.size, CHUNK):
        z = np.arange(low + 1, min(low + CHUNK, values.size) + 1, dtype=np.uint64)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z += start
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z ^= z >> np.uint64(shift)
            z *= np.uint64(factor)
        z ^= z >> np.uint64(31)
        u = (z >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
        values[low : low + CHUNK] = (u - np.float32(0.5)) * np.float32(scale) + np.float32(offset)
    return torch.from_numpy(values).reshape(tuple(shape))


def fill(shapes: Mapping[str, Sequence[int]], recipe: Mapping[str, Sequence[float]], seed: str) -> dict[str, Tensor]:
    """The state dict with these shapes; ``recipe`` holds offset and scale of each key."""
    return {key: recipe_fill(key, shape, seed, *recipe[key]) for key, shape in shapes.items()}
