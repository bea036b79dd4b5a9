"""Connections that say nothing, or that never finish what they say, are closed."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class ImpatientProtocol(H11Protocol):
    """HTTP of uvicorn, which waits without a limit for the head of a request and for what is left of a refused one.

    A connection is closed if, ``patience`` seconds after it was opened or after its last answer, no request of it is at work. How
    long the body of a request may take is the limit of the application.
    """

    patience = 30.0
    """The number of seconds."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._start()

    def _start(self) -> None:
        self._stop()
        if not self.transport.is_closing():
            self._timer = self.loop.call_later(self.patience, self._end)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        # the answer to a request that is at work starts the timer again
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


def impatient(seconds: float) -> type[ImpatientProtocol]:
    """Returns the protocol with a patience of some seconds, as uvicorn's setting ``http``."""
    return type("ImpatientProtocol", (ImpatientProtocol,), {"patience": seconds})
