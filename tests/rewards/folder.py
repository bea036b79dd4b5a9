"""The random CLIP model in PickScore's format, and what published code makes of it."""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "vectors" / "pickscore"
