"""JSON files: plain data, written whole or not at all."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlr.io.atomic import write_whole


def write_json(path: Path, content: object) -> None:
    """Writes plain data; numbers that JSON has not become null.

    Raises:
        OSError: If the file cannot be written; the old file is then unchanged.
    """
    write_whole(path, to_json(content))


def to_json(content: object) -> bytes:
    """Returns plain data as the content of a JSON file."""
    return f"{json.dumps(plain(content), indent=1, ensure_ascii=False)}\n".encode()


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        found = "bytes that are not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ValueError(f"{path}: expected JSON, found something else ({found}); remove the file") from error


def plain(value: object) -> object:
    """Returns a value with None in the place of numbers that JSON has not: NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
