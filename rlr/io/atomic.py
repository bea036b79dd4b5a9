"""Files are written whole or not at all."""

import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: Any) -> None:
    """Writes ``data`` to ``path`` so that at every moment the file is either the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
