"""The networks' weights: what each dimension loads, where it belongs, and whether it is what was published."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from rlr.evaluation.vbench.dimensions import Dimension, File
from rlr.io.hub import checksum

UNKNOWN = "no published SHA-256 is known"


def cache(folder: str | Path | None = None) -> Path:
    """Returns the folder of weights: ``folder``, or the one that VBench itself would use."""
    return Path(folder or os.environ.get("VBENCH_CACHE_DIR") or Path.home() / ".cache" / "vbench").expanduser()


def check(dimensions: Iterable[Dimension], folder: Path) -> None:
    """Checks that every file is there, and is the published one where its SHA-256 is known.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is another than was published.
    """
    needs = list(_needs(dimensions))
    missing = [(dimension, file) for dimension, file in needs if not (folder / file.path).is_file()]
    if missing:
        (dimension, file), more = missing[0], len({file.path for _, file in missing}) - 1
        others = f" ({more} other {'file is' if more == 1 else 'files are'} missing, too)" if more else ""
        raise FileNotFoundError(
            f"{dimension.name} needs the weights {folder / file.path}, which are not there{others}; "
            "`make vbench-weights` lists what goes where, and --dimensions what to judge without them"
        )
    for dimension, file in needs:
        if not published(file, folder / file.path):
            raise ValueError(
                f"the weights {folder / file.path} of {dimension.name} are not those that were published (their SHA-256 "
                f"should begin with {file.sha256[:8]}); download them again from {file.source}"
            )


def published(file: File, path: Path) -> bool:
    """Whether what is at ``path`` has the published SHA-256, as far as that is known."""
    return not file.sha256 or checksum(path).startswith(file.sha256)


def digests(dimensions: Iterable[Dimension], folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file, by its place in the folder."""
    return {file.path: checksum(folder / file.path) for _, file in _needs(dimensions)}


def report(dimensions: Iterable[Dimension], folder: Path) -> str:
    """Returns what each dimension needs, where it goes, where it comes from, and the state of what is there."""
    lines = [f"weights of VBench in {folder} (set VBENCH_CACHE_DIR or --weights for another folder)"]
    for dimension in dimensions:
        lines += ["", f"{dimension.name}{'' if dimension.files else ': needs none'}"]
        for file in dimension.files:
            lines += [f"  {file.path}", f"    from   {file.source}", f"    state  {_state(file, folder / file.path)}"]
    return "\n".join(lines)


def present(dimensions: Iterable[Dimension], folder: Path) -> tuple[int, int]:
    """Returns how many of the files are there, whatever they hold, and how many there should be."""
    paths = {file.path for _, file in _needs(dimensions)}
    return sum((folder / path).is_file() for path in paths), len(paths)


def sound(dimensions: Iterable[Dimension], folder: Path) -> bool:
    """Whether no file that is there differs from the published one."""
    there = [file for _, file in _needs(dimensions) if (folder / file.path).is_file()]
    return all(published(file, folder / file.path) for file in there)


def _state(file: File, path: Path) -> str:
    known = f"the published SHA-256 is {file.sha256}{'' if len(file.sha256) == 64 else '…'}" if file.sha256 else UNKNOWN
    if not path.is_file():
        return f"MISSING; {known}"
    found = f"{path.stat().st_size:,} bytes, SHA-256 {checksum(path)}"
    if not published(file, path):
        return f"WRONG: {found}; {known}, so download it again"
    return f"there: {found}; {'as published' if file.sha256 else known}"


def _needs(dimensions: Iterable[Dimension]) -> Iterator[tuple[Dimension, File]]:
    for dimension in dimensions:
        for file in dimension.files:
            yield dimension, file
