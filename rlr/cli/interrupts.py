"""SIGTERM, by which a cluster ends a job."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.utilities.exceptions import SIGTERMException

from rlr.callbacks.preemption import TERMINATED
from rlr.distributed import world_size

SIGTERM_STATUS = 143
"""The exit status of a process that SIGTERM has ended, 128 + 15."""


def exit_by(error: SIGTERMException) -> SystemExit:
    """Returns the exit of a process that SIGTERM has ended, with the notes of the exception: how the run continues."""
    left = SystemExit(SIGTERM_STATUS)
    for note in getattr(error, "__notes__", ()):
        left.add_note(note)
    return left


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Within, SIGTERM raises at once, in the middle of an update too; Lightning alone would wait for the end of the batch.

    Several processes wait, since they have to stop at the same batch.

    Raises:
        SIGTERMException: When the process gets SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    TERMINATED.clear()
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(*_: Any) -> None:
    TERMINATED.set()
    if world_size() == 1:
        # a second signal must not interrupt the checkpoint
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SIGTERMException
