"""Stand-ins for what OCR and GenEval look at images with: they see something else in every image, of random weights too."""

import zlib
from collections.abc import Sequence

from rlr.rewards import Detection
from rlr.rewards.pixels import Image
from tests.rewards.geneval.scenes import thing

WORD = "reinforcement"
SIGNS = [f'{surface} that says "{WORD}"' for surface in ("a sign", "a mug", "a door")]
"""Prompts for OCR, which has a score of its own for each number of letters."""
NAMES = ("clock", "bench", "cup")
COUNTS = [
    {"tag": "counting", "include": [{"class": name, "count": 3}], "prompt": f"a photo of three objects: {name}"}
    for name in NAMES
]
"""Prompts for GenEval, whose partial credit has a score of its own for almost each number of objects."""


def number(image: Image) -> int:
    """A number below 2³² that follows from the pixels."""
    return zlib.crc32(image.tobytes())


def read(images: Sequence[Image]) -> list[str]:
    """The first letters of the word."""
    return [WORD[: number(image) % (len(WORD) + 1)] for image in images]


def find(images: Sequence[Image]) -> list[list[Detection]]:
    """Up to 15 objects of each name."""
    return [[thing(name, 20 + k) for name in NAMES for k in range(number(image) % 16)] for image in images]


def name_colors(image: Image, objects: Sequence[Detection], name: str) -> list[str]:
    """One color for all."""
    return ["green"] * len(objects)
