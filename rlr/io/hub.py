"""Published weights: found in a file, a folder or the hub, and compared with the checksums of their authors."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rlr.io.file_kind import check_file
from rlr.io.hub_connection import cache_if_offline, unreachable
from rlr.io.inventory import note


@dataclass(frozen=True)
class Published:
    """A file as its authors publish it.

    Args:
        name: The name of the file.
        algorithm: The hash function of ``digest``, such as ``"md5"``; empty if no checksum is known.
        digest: The checksum, in hexadecimal digits.
    """

    name: str
    algorithm: str = ""
    digest: str = ""

    def verify(self, path: Path) -> None:
        """Compares the checksum of a file.

        Raises:
            ValueError: If it differs.
        """
        if not self.digest:
            return
        found = checksum(path, self.algorithm)
        if found != self.digest:
            raise ValueError(
                f"{path}: expected the {self.name} that its authors published, with {self.algorithm} {self.digest}, got "
                f"{self.algorithm} {found}; download it again, or pass verify=False to load other weights on purpose"
            )


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Returns the checksum of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def find(source: str, files: Iterable[Published], verify: bool = True) -> Path:
    """Returns the path of a weights file, and downloads the file with a progress bar if ``source`` is a hub id.

    Args:
        source: A file, a folder, or a hub id.
        files: The names that the file may have in a folder or on the hub, with their checksums; the first is the hub's.
        verify: Whether a file with a published name must have the published checksum.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no weights file (see :func:`~rlr.io.file_kind.identify`), or its checksum differs.
    """
    known = {file.name: file for file in files}
    path = _locate(source, list(known))
    note(source, path.name, here=True)
    check_file(path)
    if verify and path.name in known:
        known[path.name].verify(path)
    return path


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """Returns the files that the libraries read the weights in a folder from: safetensors if there are any, else ``.bin``."""
    mark = rf"\.{re.escape(variant)}" if variant else ""
    shard = r"(?:-\d+-of-\d+)?"
    for end in ("safetensors", "bin"):
        name = re.compile(rf"(?:diffusion_pytorch_|pytorch_)?model(?:{mark}{shard}|{shard}{mark})\.{end}")
        files = sorted(file for file in folder.glob(f"*.{end}") if name.fullmatch(file.name))
        if files:
            return files
    return []


def weights_here(source: str, part: str = "", revision: str | None = None, variant: str | None = None) -> bool:
    """Returns whether all weight files of a part of a model are on this machine.

    Args:
        source: A folder, or a name on the hub, whose files are then looked for in its cache.
        part: The folder of the part within it; by default it has no parts.
        revision: The revision on the hub.
        variant: The variant of the weight files.
    """
    from huggingface_hub import try_to_load_from_cache

    folder = Path(source).expanduser() / part
    if not folder.is_dir():
        cached = try_to_load_from_cache(source, f"{part}/config.json".lstrip("/"), revision=revision)
        if not isinstance(cached, str):
            return False
        folder = Path(cached).parent
    files = weight_files(folder, variant)
    count = re.search(r"-of-(\d+)", files[0].name) if files else None
    return len(files) == int(count[1]) if count else bool(files)


def _locate(source: str, names: list[str]) -> Path:
    path = Path(source).expanduser()
    candidates = [path, *(path / name for name in names)]
    return next((candidate for candidate in candidates if candidate.is_file()), None) or _download(source, names[0])


def _download(source: str, name: str) -> Path:
    # imported here, so that local files need no hub
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with cache_if_offline():
            return Path(hf_hub_download(source, name))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        note(source, name, here=False)
        cause = unreachable() or _short(error)
        raise FileNotFoundError(
            f"{name} was not found in {source!r} ({cause}); set the path of the file, a folder that holds it, or a hub id that "
            "this machine can reach"
        ) from error


def _short(error: Exception) -> str:
    # the hub's messages run over many lines; the first one says what happened
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:120]
