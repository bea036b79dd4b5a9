"""What a process is doing: one line that is rewritten on a terminal, and repeated now and then in a log file."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

PERIOD = 14.0
"""The most seconds without a sign of life, less one."""
ERASE = "\r\x1b[K"
"""Moves to the start of a line of a terminal, and erases it."""


class Terminal:
    """States on stderr what the process is doing.

    On a terminal, the line is rewritten in place. In a file, a line follows at most every ``period`` seconds. Nothing is written
    outside :meth:`alive`, so that a library call is silent.

    Args:
        stream: The stream, by default stderr.
        clock: Returns the time in seconds.
        period: The seconds between two lines of a file.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic, period: float = PERIOD
    ) -> None:
        self._stream, self.clock, self.period = stream, clock, period
        self._lock = threading.RLock()
        self._active = False
        self._text, self._since, self._shown = "", 0.0, float("-inf")
        self._open = False
        """Whether the cursor is behind our line."""

    @property
    def stream(self) -> TextIO:
        """The stream."""
        return self._stream or sys.stderr

    def status(self, text: str) -> None:
        """States what is being done from now on."""
        with self._lock:
            if self._active:
                self._text, self._since = text, self.clock()
                if self.stream.isatty() or self._since - self._shown >= self.period:
                    self._show(text)

    def beat(self) -> None:
        """Repeats what is being done, and for how long, if nothing was written for a while."""
        with self._lock:
            now = self.clock()
            if self._active and self._text and now - self._shown >= self.period:
                lasting = now - self._since
                self._show(f"{self._text} · for {duration(lasting)}" if lasting >= self.period / 2 else self._text)

    def clear(self) -> None:
        """Erases the line, so that other text takes its place."""
        with self._lock:
            if self._open:
                self._open = False
                self._write(ERASE)

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Within, a thread writes a sign of life when nothing else does; an inner block changes nothing."""
        if self._active:
            yield
            return
        stop = threading.Event()
        thread = threading.Thread(target=self._beat_until, args=(stop,), daemon=True)
        # what takes a moment needs no line in a file
        self._active, self._shown = True, self.clock()
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.clear()
            self._active, self._text = False, ""

    def _beat_until(self, stop: threading.Event) -> None:
        while not stop.wait(1.0):
            self.beat()

    def _show(self, text: str) -> None:
        self._shown = self.clock()
        live = self.stream.isatty()
        self._open = False
        self._write(f"{ERASE}{text}" if live else f"{text}\n")
        self._open = live

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (ValueError, OSError):
            # its reader is gone, and the run must not fail for that
            self._active = False


TERMINAL = Terminal()
"""The terminal of this process."""


class RemainingTime:
    """The time that each of a number of equal pieces of work takes.

    Args:
        total: The number of pieces; None where it is not known.
        clock: Returns the time in seconds.
        window: The number of pieces over which to average.
    """

    def __init__(self, total: int | None, clock: Callable[[], float] | None = None, window: int = 20) -> None:
        self.total, self.clock = total, clock or TERMINAL.clock
        self._seen: deque[tuple[int, float]] = deque(maxlen=window + 1)

    def reached(self, done: int) -> str:
        """Returns seconds a piece and time left, such as ``12 s each · 33 min left``, after some pieces; empty at first."""
        self._seen.append((done, self.clock()))
        (first, began), (last, now) = self._seen[0], self._seen[-1]
        if last <= first:
            return ""
        each = (now - began) / (last - first)
        left = f" · {duration(each * (self.total - last))} left" if self.total is not None else ""
        return f"{seconds(each)} each{left}"


def seconds(value: float) -> str:
    """Returns a short time with two digits, such as ``0.35 s`` or ``12 s``."""
    return f"{value:.2g} s" if value < 10 else duration(value)


def duration(value: float) -> str:
    """Returns a time in whole units, such as ``45 s``, ``33 min`` or ``2 h 10 min``."""
    if value < 99.5:
        return f"{max(0, round(value))} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def counted(what: str, total: int) -> Callable[[int], None]:
    """Returns a function that states how many of some pieces of work are done, and how long the others will take."""
    pace = RemainingTime(total)
    pace.reached(0)

    def state(done: int) -> None:
        TERMINAL.status(" · ".join(filter(None, [f"{what} {done}/{total}", pace.reached(done)])))

    return state
