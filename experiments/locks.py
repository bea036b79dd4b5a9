"""Locks that processes of one machine share; the operating system releases those of a killed process."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.base import Run
from experiments.settings import Setting


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Waits until no other process holds the lock of a folder, and holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with opened(folder, os.O_RDONLY) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def claimed(setting: Setting, experiment: str, run: Run) -> Iterator[bool]:
    """Claims a run for this process, so that no other process measures it at the same time.

    Yields:
        Whether the run is this process's, or False if another process holds it.
    """
    path = claim_file(setting, experiment, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def claim_file(setting: Setting, experiment: str, run: Run) -> Path:
    """Returns the file whose lock claims a run."""
    digest = hashlib.sha256(f"{experiment} {run.title}".encode()).hexdigest()[:16]
    return setting.runs / "claims" / digest


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Opens a file or a folder; closing it releases its lock."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
