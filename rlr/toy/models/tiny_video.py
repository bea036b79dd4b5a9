"""The built-in model of videos: a small VideoCrafter that was trained on moving scenes, and comes with the package."""

from typing import Any

from rlr.models.videocrafter.model import VideoCrafter
from rlr.toy.packaged import packaged


class TinyVideo(VideoCrafter):
    r"""The built-in model: videos of 8 frames of 32 x 32 pixels, latents of shape (4, 8, 8, 8), :math:`v`-prediction.

    It is an ordinary :class:`VideoCrafter` folder, small enough for a processor without accelerator.

    Args:
        path: Another folder to take its place; by default the one in the package.
        decode_chunk: How many frames are decoded at once, by default all.
        options: As in :class:`VideoCrafter`.
    """

    def __init__(self, path: str | None = None, decode_chunk: int | None = None, **options: Any) -> None:
        path = path or packaged("tiny_video", "model of videos", "set path to a VideoCrafter's folder")
        super().__init__(path, decode_chunk=decode_chunk, **options)
