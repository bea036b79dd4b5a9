"""What a file is, by its name and its first bytes: whether it can hold the weights or settings that its name promises."""

import codecs
import json
import re
import zipfile
from pathlib import Path

POINTER = b"version https://git-lfs.github.com/spec/"
"""The first bytes of the small text file that Git LFS keeps in the place of a large one."""

TORCH_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt"}
"""The suffixes of files of :func:`torch.save`."""


def is_zip(path: Path) -> bool:
    """Whether a file is a zip file, as those of :func:`torch.save` are, whole or damaged."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        # the end of the directory is there, and says what cannot be
        return True


def identify(path: Path) -> str | None:
    """Returns what a file is that cannot be a file of weights or settings, or None if it may be one.

    The answer fits the sentence "PATH is …": ``"empty"``, ``"a Git LFS pointer"``, ``"an HTML page"``,
    ``"cut off after N of M bytes"``, ``"a text file that begins with '…'"``. The name's suffix decides what is expected:
    safetensors, a file of :func:`torch.save` (``.bin``, ``.pt``, ``.pth``, ``.ckpt``), or JSON; of other files only the
    first three are recognized. Little is read of large files, and damage inside them is not found here.

    Args:
        path: An existing file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1024)
    if replaced := identify_place_holder(head):
        return replaced
    if path.suffix == ".json":
        return _identify_json(path)
    if path.suffix == ".safetensors":
        return _identify_safetensors(path, size) or _identify_text(head)
    if path.suffix in TORCH_SUFFIXES:
        cut = head.startswith(b"PK\x03\x04"[:size]) and not is_zip(path)
        return f"cut off after {size} bytes" if cut else _identify_text(head)
    return None


def identify_place_holder(head: bytes) -> str | None:
    """Returns what stands in the place of any file, by its first bytes: nothing, the pointer of Git LFS, or a page of a server."""
    if not head:
        return "empty"
    if head.startswith(POINTER):
        return "a Git LFS pointer"
    page = re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html)", head, re.IGNORECASE)
    return "an HTML page" if page else None


def check_file(path: Path, remedy: str = "download it again") -> None:
    """Raises if :func:`identify` knows a file to be something else than its name says.

    Args:
        path: The file.
        remedy: What the message advises to do.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is something else; the message names the file, what it is, and the remedy.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} (looked for at {path.absolute()}); check the path")
    if what := identify(path):
        advice = "fetch the file itself with `git lfs pull`" if "LFS" in what else remedy
        raise ValueError(f"{path} is {what}; {advice}")


def _identify_safetensors(path: Path, size: int) -> str | None:
    """Compares the size with the header: its length in 8 bytes, then JSON with the offsets of the tensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8:
            return f"cut off after {size} of at least 8 bytes"
        # the format allows headers of up to 100 MB: a longer one is another kind of file
        if length > 100_000_000:
            return None
        if 8 + length > size:
            return f"cut off after {size} of at least {8 + length} bytes"
        header = file.read(length)
    try:
        ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    except RecursionError:
        return "no safetensors file (its header is nested too deep)"
    return f"cut off after {size} of {whole} bytes" if size < whole else None


def _identify_json(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            return f"cut off after {path.stat().st_size} bytes"
        return f"no JSON ({error.msg} in line {error.lineno}, column {error.colno})"
    # a number of more digits than Python reads is a ValueError
    except (ValueError, RecursionError) as error:
        return f"no JSON ({type(error).__name__})"
    return None


def _identify_text(head: bytes) -> str | None:
    try:
        # the incremental decoder, since the last character may be cut
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return None
    if not all(character.isprintable() or character.isspace() for character in text):
        return None
    begin = " ".join(text.split())
    return f"a text file that begins with {begin[:40]!r}"
