"""Whether a file of a model is whole: :func:`rlr.io.file_kind.check_file`, and text and gzip files besides."""

import gzip
import zlib
from pathlib import Path

from rlr.io import file_kind

LARGEST = 2**26
"""The most bytes that a gzip file of a model holds; the published ones are merges of 3 MB."""


def check_file(path: Path) -> None:
    """Checks one file of a model by its suffix.

    Raises:
        ValueError: If it is empty, cut off, a Git LFS pointer, or does not parse.
    """
    file_kind.check_file(path)
    try:
        if path.suffix == ".txt":
            path.read_text("utf-8")
        elif path.suffix == ".gz":
            _check_gzip(path)
    except (UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); download it again") from error


def _check_gzip(path: Path) -> None:
    with gzip.open(path) as file:
        if len(file.read(LARGEST + 1)) > LARGEST:
            raise ValueError(f"{path} holds more than {LARGEST} bytes; set the file that the authors published")
