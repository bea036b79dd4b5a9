"""Standard output that cannot fail a run: a finished command has succeeded, whether or not its table could be printed."""

import io
import os
import sys
from typing import Any

from rlr.io.terminal import TERMINAL


def tolerate_output() -> None:
    """Makes stdout and stderr substitute characters that they cannot encode, and ignore that nobody reads them any more."""
    for name in ("stdout", "stderr"):
        setattr(sys, name, _tolerant(getattr(sys, name)))


def _tolerant(stream: Any) -> Any:
    """Returns a stream that substitutes and ignores; the null device for a stream that is closed."""
    if stream is None or stream.closed:
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper) or isinstance(stream, TolerantStream):
        return stream
    stream.flush()
    line = stream.line_buffering
    return TolerantStream(stream.detach(), encoding=stream.encoding, errors="replace", line_buffering=line)


class TolerantStream(io.TextIOWrapper):
    """A text stream that switches to the null device once its reader is gone, and replaces the progress line."""

    def write(self, text: str) -> int:
        TERMINAL.clear()
        try:
            return super().write(text)
        except BrokenPipeError:
            self._abandon()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._abandon()

    def _abandon(self) -> None:
        # what is buffered still has to go somewhere when the interpreter ends
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
