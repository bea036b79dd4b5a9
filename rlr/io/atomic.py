"""Files are written whole or not at all: the one writer that everything else goes through."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: Any) -> None:
    """Writes bytes to a file so that at every moment the file is either the old one or the new one, whole.

    Args:
        path: The file; missing folders are made.
        data: Bytes, or another object with the buffer protocol.

    Raises:
        OSError: If the file cannot be written; the old file is then unchanged.
    """
    with replacing(path) as part:
        part.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path ``NAME.PID.part`` beside a file, and moves what the block writes there to the file's own path.

    For writers that need a path; :func:`write_whole` is for bytes. If the block raises, the old file stays. A process that
    is killed inside the block leaves its part behind: the next writer of the same file removes the parts of processes
    that no longer run on this host, so processes on different hosts must not write the same file at the same time.

    Args:
        path: The file; missing folders are made.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned_parts(path)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.errno not in (*FULL, errno.EROFS, errno.EIO):
            raise
        raise unwritten(path, error, "run the command again; what was there is untouched") from error
    finally:
        part.unlink(missing_ok=True)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The numbers of the errors of a disk, or a share of it, that has no room."""


def unwritten(what: object, error: OSError, then: str) -> OSError:
    """Returns the error of a write as a sentence, with its number.

    Args:
        what: What could not be written.
        error: The error.
        then: What to do once there is room, or in another folder.
    """
    full = error.errno in FULL
    reason = os.strerror(error.errno) if error.errno else error
    made = OSError(
        f"{what} could not be written, for {'the disk is full' if full else reason}; "
        f"{'make room' if full else 'choose another folder'} and {then}"
    )
    # without strerror, which would take the place of the sentence
    made.errno = error.errno
    return made


def occupied(path: Path) -> bool:
    """Returns whether a path is a file, or a folder that holds something."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder ``NAME.PID.part``, and moves it to its own path when the block ends.

    If the block raises, nothing is left.

    Args:
        path: The folder, which must not exist or be empty; missing parents are made.

    Raises:
        FileExistsError: If the folder holds files, or is a file.
    """
    if occupied(path):
        raise FileExistsError(f"{path} exists and is not empty; name a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned_parts(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.mkdir()
    try:
        yield part
        os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_abandoned_parts(path: Path) -> None:
    pattern = re.compile(re.escape(path.name) + r"\.([1-9][0-9]{0,9})\.part")
    for entry in list(path.parent.iterdir()):
        matched = pattern.fullmatch(entry.name)
        if matched and not _runs(int(matched[1])):
            _remove(entry)


def _remove(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    """Whether a process of this number runs on this host."""
    try:
        # signal 0 asks for the process and sends nothing
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        # another user's process, or a number that is no process's: the file is left alone
        return True
    return True
