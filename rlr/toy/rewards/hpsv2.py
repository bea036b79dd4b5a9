"""The built-in world's second preference model."""

from importlib.resources import files
from pathlib import Path

from rlr.rewards.networks.hpsv2 import MERGES, WEIGHTS, HPSv2


class TinyHPSv2(HPSv2):
    """The built-in world's second preference model, shipped inside the package (32 pixels, cosines).

    It was trained apart from :class:`~rlr.toy.rewards.pickscore.TinyPickScore`, on other scenes and on captions of which
    half name a motion: a reward to hold out, or for the frames of videos.

    Args:
        path: Another folder in the same layout to take its place.
    """

    def __init__(self, path: str | None = None) -> None:
        folder = Path(path or str(files("rlr.toy") / "assets" / "tiny_hpsv2"))
        weights, merges = str(folder / WEIGHTS), str(folder / MERGES)
        super().__init__(weights, architecture=f"local-dir:{folder}", merges=merges)

    @property
    def label(self) -> str:
        return type(self).__name__
