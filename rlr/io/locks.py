"""Locks that processes of one machine share; the operating system releases those of a killed process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Waits until no other process holds the lock of a folder, and holds it; no file is left behind."""
    folder.mkdir(parents=True, exist_ok=True)
    with opened(folder, os.O_RDONLY) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Claims a file for this process; yields whether it is this process's, or False if another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Opens a file or a folder; closing it releases its lock."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
