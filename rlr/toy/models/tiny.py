"""The built-in model: a small Stable Diffusion that was trained on captioned scenes, and comes with the package."""

from importlib import resources
from typing import Any

from rlr.models.stable_diffusion import StableDiffusion


class Tiny(StableDiffusion):
    r"""The built-in model: images of 32 x 32 pixels, latents of shape (4, 8, 8), :math:`v`-prediction.

    It is an ordinary :class:`StableDiffusion` folder, small enough for a processor without accelerator.

    Args:
        path: Another folder to take its place; by default the one in the package.
        options: As in :class:`StableDiffusion`.
    """

    def __init__(self, path: str | None = None, **options: Any) -> None:
        super().__init__(path or _packaged(), **options)


def _packaged() -> str:
    folder = resources.files("rlr.toy") / "assets" / "tiny"
    if not folder.is_dir():
        raise ValueError(
            f"the built-in model is missing from this installation ({folder}); install the package again, or give path: "
            "a Stable Diffusion folder"
        )
    return str(folder)
