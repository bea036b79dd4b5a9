"""Who may ask a reward server: requests with the right host and the right token."""

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from rlr.io.http import is_loopback

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application that passes on what may be asked, and refuses the rest in one sentence.

    The check of the host stops web pages that reach this machine under a name of their own (DNS rebinding).

    Args:
        app: The application behind it.
        token: The secret that requests must show as ``Authorization: Bearer …``, compared in constant time; None asks for no token.
        hosts: The names that the header ``Host`` may have, besides this machine's loopback addresses; None allows all names.
    """

    def __init__(self, app: Application, token: str | None = None, hosts: Sequence[str] | None = ()) -> None:
        self.app = app
        self._expected = None if token is None else f"Bearer {token}".encode()
        self.hosts = None if hosts is None else {_bare(host) for host in hosts}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not self._is_host(headers.get(b"host", b"")):
            await _refuse(
                send, 421, "this server is not asked under that host; start it with --hosts for further names"
            )
        elif not self._is_token(headers.get(b"authorization", b"")):
            sentence = "the token is missing or wrong; set the environment variable or token_file of Remote"
            await _refuse(send, 401, sentence, (b"www-authenticate", b"Bearer"))
        else:
            await self.app(scope, receive, send)

    def _is_host(self, header: bytes) -> bool:
        name = _bare(header.decode("latin-1"))
        return self.hosts is None or name in self.hosts or is_loopback(name)

    def _is_token(self, header: bytes) -> bool:
        return self._expected is None or hmac.compare_digest(header, self._expected)


def _bare(host: str) -> str:
    """Returns a host without its port and without the brackets of IPv6."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0] if name.count(":") == 1 else name


async def _refuse(send: Send, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
    body = json.dumps({"error": sentence}).encode()
    length = (b"content-length", str(len(body)).encode())
    kind = (b"content-type", b"application/json")
    await send({"type": "http.response.start", "status": status, "headers": [kind, length, *headers]})
    await send({"type": "http.response.body", "body": body})
