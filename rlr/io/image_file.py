"""Image files of others: bitmaps of known formats, and no larger than what is meant to be read."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""What is read; other formats of Pillow start programs (EPS), or load what the file names."""
MOST_PIXELS = 2**26
"""The most pixels of an image, those of 8192 × 8192."""
FAULTS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for a damaged file."""


@contextmanager
def image_file(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """Yields an image, of which no more than its head is decoded before its size is known to be allowed.

    Args:
        path: The file.
        content: What it holds, where that has been read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, of another format, or larger than ``MOST_PIXELS``.
    """
    if content is None and not path.is_file():
        raise FileNotFoundError(f"there is no image {path} (looked for at {path.absolute()}); check the path")
    try:
        with Image.open(path if content is None else io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} × {image.height} pixels are more than {MOST_PIXELS}")
            image.load()
            yield image
    except FAULTS as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path}: expected a whole image ({', '.join(FORMATS)}), found something else ({cause}); replace or remove the file"
        ) from error
