"""What the samples in a folder are made with, so that a folder never holds those of two models."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlr.io.json_file import read_json, write_json
from rlr.io.shape import check_shape

ORIGIN = "origin.json"
"""The file beside the samples."""

SUFFIXES = (".png", ".mp4", ".json")
"""The suffixes of the files of samples."""


def claim(folder: Path, origin: Mapping[str, Any], remedy: str) -> None:
    """Notes what the samples in a folder are made with.

    Args:
        folder: The folder.
        origin: What they are made with, as plain data.
        remedy: How to choose another folder.

    Raises:
        ValueError: If there are samples of something else.
    """
    path = folder / ORIGIN
    noted = json.loads(json.dumps(origin))
    found = read_json(path) if path.is_file() else None
    if found is None and any(file.suffix in SUFFIXES for file in folder.glob("*")):
        raise ValueError(f"{folder} holds samples, and no {ORIGIN} that says of what; {remedy}, or delete the folder")
    check_shape(found or {}, {}, str(path), f"{remedy}, or delete the folder")
    other = [name for name in noted if found is not None and found.get(name) != noted[name]]
    if other:
        raise ValueError(
            f"the samples in {folder} were made with another {' and '.join(other)}; {remedy}, or delete the folder"
        )
    write_json(path, noted)
