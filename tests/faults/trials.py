"""Trials: a program is sent a signal at random moments, continued, and compared with one that was not."""

import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.faults.moments import Ended, drawn, run_apart
from tests.faults.programs import Program

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
STATUS = {"SIGKILL": (-signal.SIGKILL,), "SIGTERM": (143, -signal.SIGTERM), "SIGINT": (130,)}
"""The exit statuses that say what has ended the process."""


@dataclass(frozen=True)
class Row:
    """What trials of a program with a signal have found.

    Args:
        program: The name of the program.
        signal: The name of the signal.
        tried: How many times it was tried.
        lost: How many times what was left in the end was not that of an uninterrupted program.
        failed: How many times the status was wrong, a traceback was shown, or the continuation failed.
        notes: What went wrong.
    """

    program: str
    signal: str
    tried: int = 0
    lost: int = 0
    failed: int = 0
    notes: tuple[str, ...] = ()


class Trials:
    """The trials of a program.

    Args:
        program: The program.
        folder: A folder for all of its runs.
    """

    def __init__(self, program: Program, folder: Path) -> None:
        self.program, self.folder = program, folder
        self._expected: Any = None
        self._calls = 0

    def prepare(self) -> int:
        """Runs the program without a signal, and returns how many moments there are."""
        shared = run_apart(self.program.prepare, self.folder / "prepare", self.program.moments)
        assert shared.status == 0, shared.output
        whole = self._apart(self.folder / "whole")
        assert whole.status == 0, whole.output
        self._expected, self._calls = self.program.left(self.folder / "whole"), whole.calls
        assert self._expected
        return self._calls

    def run(self, name: str, count: int, seed: int = 0) -> Row:
        """Sends a signal at random moments, and returns what was found."""
        row = Row(self.program.name, name)
        for at in drawn(self._calls, count, seed):
            lost, failed = (list(notes) for notes in self._trial(name, at))
            row = replace(
                row,
                tried=row.tried + 1,
                lost=row.lost + bool(lost),
                failed=row.failed + bool(failed),
                notes=(*row.notes, *(f"call {at} of {self._calls}: {note}" for note in [*lost, *failed])),
            )
        return row

    def _trial(self, name: str, at: int) -> tuple[Sequence[str], Sequence[str]]:
        """Returns what was lost and what failed with a signal at one moment."""
        folder = self.folder / f"{name}{at}"
        ended = self._apart(folder, at, SIGNALS[name])
        failed = list(_faults(ended, name))
        after = run_apart(lambda: self.program.go_on(folder), folder / "after", self.program.moments)
        if after.status != 0:
            return ["what continues it ended with an error"], [*failed, f"{after.status}: {after.output[-2000:]}"]
        lost = [f"{name} is not that of a whole run" for name in differing(self.program.left(folder), self._expected)]
        if not (lost or failed):
            shutil.rmtree(folder)
        return lost, failed

    def _apart(self, folder: Path, at: int = 0, number: int = 0) -> Ended:
        return run_apart(lambda: self.program.run(folder), folder / "log", self.program.moments, at, number)


def differing(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Returns the names of what differs."""
    names = found.keys() | expected.keys()
    return sorted(name for name in names if name not in found or name not in expected or found[name] != expected[name])


def _faults(ended: Ended, name: str) -> Iterator[str]:
    """Yields what is wrong with how a program ended after a signal."""
    # it may have been too late: after the last update there is nothing to interrupt
    if ended.status not in (*STATUS[name], 0):
        yield f"status {ended.status}: {ended.output[-2000:]}"
    elif ended.traceback:
        yield f"a traceback: {ended.output[-2000:]}"


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as a table in Markdown."""
    lines = ["| program | signal | tried | lost | failed |", "|---|---|--:|--:|--:|"]
    lines += [f"| {row.program} | {row.signal} | {row.tried} | {row.lost} | {row.failed} |" for row in rows]
    return "\n".join(lines)
