"""Readers of prompt files and folders. Every error names the file and the line."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rlr.io.file_kind import identify_place_holder
from rlr.io.hub_connection import cache_if_offline
from rlr.io.inventory import note
from rlr.io.text import check_text

CSV_FIELD = re.compile(r'("[^"]*(?:""[^"]*)*"|[^",\r\n][^,\r\n]*|)(,|\r\n|\n|\r|\Z)')
"""A field of RFC 4180 and what ends it. A quote inside a field that does not start with one stands for itself."""

ADDRESS = re.compile(r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.~-]+))?/(?P<file>.+)")
"""The address of files of a data set on the hub, as fsspec and pandas write it."""


def read_text(path: Path) -> str:
    """Returns the text of a UTF-8 file, without its byte-order mark.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not UTF-8, or contains NUL.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no prompt file {path} (looked for at {path.absolute()}); check the path")
    data = path.read_bytes()
    if data and (replaced := identify_place_holder(data[:1024])):
        raise ValueError(f"the prompt file {path} is {replaced}; download the file itself")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"the prompt file {path} is not UTF-8: line {line} has the byte 0x{data[error.start]:02x} "
            f"(byte {error.start} of the file); save it as UTF-8"
        ) from error
    if "\0" in text:
        raise ValueError(
            f"the prompt file {path} has a NUL character in line {line_of(text, text.index(chr(0)))}, as UTF-16 and binary "
            "files have; save it as UTF-8 text"
        )
    return text


def line_of(text: str, position: int) -> int:
    """Returns the line of a character, counted from 1."""
    return text.count("\n", 0, position) + 1


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    r"""Yields the lines that are not blank, with their numbers from 1 on.

    A line ends at ``\n``. :meth:`str.splitlines` would also split at U+2028, U+0085 and others, which JSON strings and
    prompts may contain.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def text_lines(text: str, path: Path) -> Iterator[tuple[int, str]]:
    r"""Yields the lines of a text file that are not blank, which end at ``\n`` or ``\r\n``.

    Raises:
        ValueError: If a line contains ``\r`` elsewhere: as a line end of old files it would join all prompts into one.
    """
    for number, line in numbered_lines(text):
        if "\r" in line.strip():
            raise ValueError(
                rf"line {number} of {path} has a carriage return (\r) inside; end each line with \n or \r\n, or use .jsonl"
            )
        yield number, line


def json_lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """Yields the JSON values of a text, one a line, with their line numbers.

    Raises:
        ValueError: If a line is not one JSON value, or repeats a key of an object.
    """
    for number, line in numbered_lines(text):
        place = f"line {number} of {path}"
        try:
            value = json.loads(line, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place} is not JSON ({_reason(error)}); write one object a line") from error
        yield number, value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is repeated in an object")
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def read_items(path: Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> list[Any]:
    """Returns the items of a file that contains one JSON list.

    Args:
        path: The file.
        hook: Applied to each object as soon as it is read, so that large files need little memory.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is incomplete, or contains anything else.
    """
    text = read_text(path)
    try:
        items = json.loads(text, object_hook=hook)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"line {error.lineno} of {path} is not JSON ({_reason(error)}); download the file again"
        ) from error
    # a ValueError is a number of more digits than Python reads
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path} is not JSON ({_reason(error)}); download the file again") from error
    if not isinstance(items, list) or not items:
        raise ValueError(f"{path} holds no list of prompts; use the published file")
    return items


def csv_rows(text: str, path: Path, column: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the rows of a CSV text under the names of its header, with the number of each row's first line.

    Fields may have any length. A row may leave out columns after ``column``.

    Raises:
        ValueError: If the header does not name ``column`` exactly once, a quote is not closed or is followed by text, or
            a row has other fields than the header.
    """
    rows = _csv_fields(text, path)
    names = [name.strip() for name in next(rows, (1, [""]))[1]]
    if column not in names:
        raise ValueError(
            f"{path} has no column {column!r} but {', '.join(filter(None, names)) or 'no names'}; set column to one of these"
        )
    if names.count(column) > 1:
        raise ValueError(f"{path} has {names.count(column)} columns {column!r}; rename all but one")
    for number, fields in rows:
        if len(fields) > len(names):
            raise ValueError(
                f"line {number} of {path} has more fields than there are columns; put a prompt with commas in quotes"
            )
        if len(fields) <= names.index(column):
            raise ValueError(f"line {number} of {path} has no field for the column {column!r}; complete the row")
        yield number, dict(zip(names, fields, strict=False))


def _csv_fields(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the fields of each row that is not empty, with the number of its first line."""
    at, line, start = 0, 1, 1
    fields: list[str] = []
    while at < len(text) or fields:
        match = CSV_FIELD.match(text, at)
        if match is None:
            raise ValueError(
                f"line {line} of {path} opens a quote that is not closed before a comma or the end of a line; "
                'close it, or write "" for a quote inside a quoted field'
            )
        field, end = match.groups()
        fields.append(field[1:-1].replace('""', '"') if field.startswith('"') else field)
        at, line = match.end(), line + match[0].count("\n") + (end == "\r")
        if end != ",":
            if any(map(str.strip, fields)):
                yield start, fields
            start, fields = line, []


def prompt_of(value: object, place: str, column: str) -> str:
    """Returns the prompt that a JSON value is, or contains under the key ``column``.

    Raises:
        ValueError: If there is no text, or no valid text; ``place`` says where.
    """
    prompt = value.get(column) if isinstance(value, dict) else value
    if not isinstance(prompt, str):
        raise ValueError(f"{place} has no text under {column!r}; add it, or name another key as column")
    return check_text(prompt, place)


def hub_files(address: str) -> list[Path] | None:
    """Returns the files of an address such as ``hf://datasets/OWNER/NAME/data/train-*.parquet``, downloaded once.

    ``NAME@REVISION`` names a revision. A text of another form is no address, and None is returned.

    Raises:
        FileNotFoundError: If there are no such files, or the hub does not answer.
    """
    found = ADDRESS.fullmatch(address)
    if found is None:
        return None
    folder = _download(found["name"], [found["file"]], found["revision"])
    files = sorted(folder.glob(found["file"]))
    if not files:
        raise FileNotFoundError(
            f"{address}: expected files of that name in the data set, found none; check the address"
        )
    return files


def locate(source: str, patterns: Sequence[str]) -> Path:
    """Returns a folder: ``source`` itself, or the files of the hub's data set ``source`` that match ``patterns``.

    Raises:
        FileNotFoundError: If there is no such folder, and no such data set can be downloaded.
    """
    folder = Path(source).expanduser()
    found = folder if folder.is_dir() else _download(source, patterns)
    note(source, "", here=True, dataset=True)
    return found


def _download(source: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    # imported here, so that local files need no hub
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with cache_if_offline():
            return Path(
                snapshot_download(source, repo_type="dataset", revision=revision, allow_patterns=list(patterns))
            )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        note(source, "", here=False, dataset=True)
        raise FileNotFoundError(
            f"expected a folder, or a data set on the hub that can be downloaded, found {source!r}, which is neither; set a "
            f"folder that contains {', '.join(patterns)}, or run once with a network connection"
        ) from error
