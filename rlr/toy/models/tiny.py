"""The built-in model: a small Stable Diffusion that was trained on captioned scenes, and comes with the package."""

from typing import Any

from rlr.models.stable_diffusion import StableDiffusion
from rlr.toy.packaged import packaged


class Tiny(StableDiffusion):
    r"""The built-in model: images of 32 x 32 pixels, latents of shape (4, 8, 8), :math:`v`-prediction.

    It is an ordinary :class:`StableDiffusion` folder, small enough for a processor without accelerator.

    Args:
        path: Another folder to take its place; by default the one in the package.
        options: As in :class:`StableDiffusion`.
    """

    def __init__(self, path: str | None = None, **options: Any) -> None:
        path = path or packaged("tiny", "model", "set path to a Stable Diffusion folder")
        super().__init__(path, **options)
