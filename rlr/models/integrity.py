"""Whether a file is whole: not empty, not cut off, not the pointer that Git LFS leaves in its place."""

import gzip
import json
import struct
import zlib
from pathlib import Path

POINTER = b"version https://git-lfs.github.com/spec/"


def check_file(path: Path) -> None:
    """Checks one file of a model by its suffix.

    Raises:
        ValueError: If it is empty, a Git LFS pointer, a JSON, text or gzip file that cannot be read, or a safetensors
            file of another length than its header states.
    """
    with path.open("rb") as file:
        head = file.read(len(POINTER))
    if not head:
        raise ValueError(f"{path} is empty; download it again")
    if head == POINTER:
        raise ValueError(f"{path} is a Git LFS pointer and not the file itself; run `git lfs pull` in its repository")
    if path.suffix == ".safetensors":
        _check_tensors(path)
    elif path.suffix in (".json", ".txt"):
        _check_text(path)
    elif path.suffix == ".gz":
        _check_gzip(path)


def _check_tensors(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        expected = 8 + length
        if expected <= size:
            try:
                header = json.loads(file.read(length))
                expected += max(
                    (tensor["data_offsets"][1] for key, tensor in header.items() if key[:2] != "__"), default=0
                )
            except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
                raise ValueError(f"{path} is not a safetensors file ({error}); download it again") from error
    if size != expected:
        raise ValueError(
            f"{path} has {size} bytes where its header states {expected}: it is cut off or damaged; download it again"
        )


def _check_text(path: Path) -> None:
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".json":
            json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); download it again") from error


def _check_gzip(path: Path) -> None:
    try:
        gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); download it again") from error
