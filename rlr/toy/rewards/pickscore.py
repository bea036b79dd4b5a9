"""The built-in world's own preference model."""

from importlib.resources import files

from rlr.rewards.networks.pickscore import PickScore


class TinyPickScore(PickScore):
    """The built-in world's own preference model, shipped inside the package (32 pixels, scores about -100 … 100).

    Args:
        path: Another folder in the same layout to take its place.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__(path or str(files("rlr.toy") / "assets" / "tiny_pickscore"))
