"""Stand-ins for what OCR and GenEval look at images with: they see something else in every image, of random weights too."""

import zlib
from collections.abc import Sequence

from rlr.rewards import Detection
from rlr.rewards.pixels import Image
from tests.rewards.geneval.scenes import LINES, thing

WORD = "open"
SIGNS = [f'{surface} that says "{WORD}"' for surface in ("a sign", "a mug", "a door")]
"""Prompts for OCR."""
NAMES = sorted({clause["class"] for line in LINES for clause in line["include"]})
"""The objects of the prompts of GenEval."""


def number(image: Image) -> int:
    """A number below 2³² that follows from the pixels."""
    return zlib.crc32(image.tobytes())


def read(images: Sequence[Image]) -> list[str]:
    """Up to four letters of the word."""
    return [WORD[: number(image) % 5] for image in images]


def find(images: Sequence[Image]) -> list[list[Detection]]:
    """Up to three objects of each name."""
    counts = [{name: number(image) >> 2 * k & 3 for k, name in enumerate(NAMES)} for image in images]
    return [[thing(name, 20 + 30 * k) for name in NAMES for k in range(count[name])] for count in counts]


def name_colors(image: Image, objects: Sequence[Detection], name: str) -> list[str]:
    """One color for all."""
    return ["green"] * len(objects)
