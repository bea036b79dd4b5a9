"""The folder of the results."""

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
