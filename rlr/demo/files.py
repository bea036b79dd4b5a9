"""Files that are either whole or not there."""

import os
import tempfile
from pathlib import Path


def prepare(folder: Path) -> Path:
    """Makes the folder and proves that it can be written.

    Raises:
        ValueError: If it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"the folder {folder} cannot be written ({error.strerror}); give another one with --out"
        raise ValueError(message) from None
    return folder


def write(path: Path, content: bytes | str) -> Path:
    """Writes a file in one piece: whoever opens ``path`` sees the old content or the new, never half of it."""
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
