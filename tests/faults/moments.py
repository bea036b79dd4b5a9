"""Signals at chosen moments of a program: at the k-th call of a function of this library, the same in each run."""

import multiprocessing
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

LIBRARY = str(Path(__file__).parents[2] / "rlr") + os.sep
"""The files whose calls are counted."""
LIMIT = 300.0
"""The seconds after which a program counts as hanging; it is no measure of speed."""


@dataclass(frozen=True)
class Moments:
    """Which calls of functions are counted.

    Args:
        within: Only those while a function of this qualified name runs, of any library; None counts all of this library.
    """

    within: str | None = None

    @contextmanager
    def counted(self, at: int, act: Callable[[], None]) -> Iterator[list[int]]:
        """Counts calls within, and acts at the call of number ``at``, from 1; the value has the count."""
        count, depth = [0], [0]

        def profile(frame: FrameType, event: str, argument: Any) -> None:
            if event not in ("call", "return"):
                return
            inside = frame.f_code.co_qualname == self.within
            depth[0] += inside * (1 if event == "call" else -1)
            if event == "call" and (depth[0] if self.within else frame.f_code.co_filename.startswith(LIBRARY)):
                count[0] += 1
                if count[0] == at:
                    act()

        sys.setprofile(profile)
        try:
            yield count
        finally:
            sys.setprofile(None)


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Args:
        status: Its exit status, negative for a signal; None where it had to be killed because it hung.
        calls: The calls that were counted.
        output: What it wrote.
    """

    status: int | None
    calls: int
    output: str

    @property
    def traceback(self) -> bool:
        """Whether it showed a traceback."""
        return "Traceback (most recent call last)" in self.output


def run_apart(program: Callable[[], object], folder: Path, moments: Moments, at: int = 0, number: int = 0) -> Ended:
    """Runs a program in a forked process, and sends it a signal.

    Args:
        program: The program.
        folder: Where its output goes.
        moments: What is counted.
        at: The call of which number the signal comes at; 0 for never.
        number: The signal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output, counts = folder / "output.txt", folder / "calls.txt"

    def child() -> None:
        torch.set_num_threads(1)  # a forked process has none of its parent's threads
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        count = [0]
        try:
            with moments.counted(at, lambda: os.kill(os.getpid(), number)) as count:
                program()
        finally:
            counts.write_text(str(count[0]))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(LIMIT)
    hung = process.is_alive()
    process.kill()
    process.join()
    calls = int(counts.read_text()) if counts.exists() else 0
    return Ended(None if hung else process.exitcode, calls, output.read_text(errors="replace"))


def drawn(calls: int, count: int, seed: int) -> Sequence[int]:
    """Returns ``count`` different moments of ``calls``, drawn by a seed, in order."""
    return sorted(random.Random(seed).sample(range(1, calls + 1), min(count, calls)))
