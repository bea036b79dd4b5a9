"""Detections by hand, and prompts in the benchmark's format."""

import json
from collections.abc import Sequence
from pathlib import Path

from rlr.rewards import Detection

LINES = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {
        "tag": "two_object",
        "include": [{"class": "bench", "count": 1}, {"class": "sports ball", "count": 1}],
        "prompt": "a photo of a bench and a sports ball",
    },
    {
        "tag": "counting",
        "include": [{"class": "clock", "count": 3}],
        "exclude": [{"class": "clock", "count": 4}],
        "prompt": "a photo of three clocks",
    },
    {
        "tag": "colors",
        "include": [{"class": "fork", "count": 1, "color": "green"}],
        "prompt": "a photo of a green fork",
    },
    {
        "tag": "position",
        "include": [{"class": "tv", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]}],
        "prompt": "a photo of a dog right of a tv",
    },
    {
        "tag": "color_attr",
        "include": [{"class": "bus", "count": 1, "color": "yellow"}, {"class": "cup", "count": 1, "color": "red"}],
        "prompt": "a photo of a yellow bus and a red cup",
    },
]
"""One prompt of each task, as the benchmark's file has them."""


def write(folder: Path, lines: Sequence[object] = LINES) -> str:
    """Returns the path of a file of these prompts."""
    path = folder / "evaluation_metadata.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def thing(name: str, x: float = 50, y: float = 50, size: float = 20, score: float = 0.95) -> Detection:
    """An object by its center and the side of its square box."""
    return Detection(name, score, (x - size / 2, y - size / 2, x + size / 2, y + size / 2))
