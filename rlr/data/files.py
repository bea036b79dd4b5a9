"""Files that hold prompts, here or on the hub; what is wrong with one is said with its place."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def read_text(path: Path) -> str:
    """Returns what is in a file of UTF-8, with or without a byte-order mark.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no prompt file {path} (looked for at {path.absolute()}); check the path")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"the prompt file {path} is not UTF-8: line {line} has the byte 0x{data[error.start]:02x} "
            f"(byte {error.start} of the file); save it as UTF-8"
        ) from error


def read_items(path: Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> list[Any]:
    """Returns the items of a file that holds one JSON list.

    Args:
        path: The file.
        hook: What to make of each object as soon as it is read, so that large files need little memory.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds anything else, or an end is missing.
    """
    text = read_text(path)
    try:
        items = json.loads(text, object_hook=hook)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"line {error.lineno} of {path} is not JSON ({error.msg} at column {error.colno}); download the file again"
        ) from error
    if not isinstance(items, list) or not items:
        raise ValueError(f"{path} holds no list of prompts; give the file that was published")
    return items


def prompt_of(value: object, place: str, column: str) -> str:
    """Returns the prompt that a JSON value is, or holds under ``column``.

    Raises:
        ValueError: If there is no text; ``place`` says where.
    """
    prompt = value.get(column) if isinstance(value, dict) else value
    if not isinstance(prompt, str):
        raise ValueError(f"{place} has no text under {column!r}; add it, or name another key as column")
    return prompt


def locate(source: str, patterns: Sequence[str]) -> Path:
    """Returns a folder: ``source`` itself, or what of the data set of that name on the hub fits ``patterns``.

    Raises:
        FileNotFoundError: If there is no such folder, and no such data set can be downloaded.
    """
    folder = Path(source).expanduser()
    return folder if folder.is_dir() else _download(source, patterns)


def _download(source: str, patterns: Sequence[str]) -> Path:
    # here, so that local files need no hub
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, repo_type="dataset", allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{source!r} is no folder, and no data set that can be had from the hub now; give a folder that holds "
            f"{' and '.join(patterns)}, or a hub id while there is a network"
        ) from error
