"""A reward as a server: ``python -m rlr.rewards.remote.server --config configs/serve/brightness.yaml``.

The config's ``reward`` is written as in the config of a training, and every option of the server can stand beside it.
:class:`~rlr.rewards.remote.client.Remote` is the client, :mod:`rlr.rewards.remote.protocol` the protocol.

The default address is reachable from this machine only. Any other asks for a token, and the server does not start without one:

.. code-block:: text

    export RLR_REWARD_TOKEN=$(python -c 'import secrets; print(secrets.token_urlsafe(32))')
    python -m rlr.rewards.remote.server --config configs/serve/brightness.yaml --host 0.0.0.0

The token and all pixels travel as they are: across a network that others use, put an SSH tunnel or a proxy with TLS between.
"""

import asyncio
import socket
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from ipaddress import ip_address
from typing import Any, NoReturn

import torch
from jsonargparse import ArgumentParser, auto_cli

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from rlr.rewards.remote.request_timer import impatient
except ImportError as error:
    raise ModuleNotFoundError(
        f"a server of rewards needs starlette and uvicorn ({error}); pip install 'rlr[serve]'"
    ) from error

from rlr.lazy import import_names
from rlr.rewards.base import Reward
from rlr.rewards.remote.description import description
from rlr.rewards.remote.guard import Guard
from rlr.rewards.remote.protocol import Limits, Refused, unpack
from rlr.rewards.remote.token import VARIABLE, Token


class Service:
    """Scores one request at a time, on one thread, so that the GPU holds one batch.

    Args:
        reward: The reward.
        device: The device that it computes on.
        limits: The largest request.
    """

    def __init__(self, reward: Reward, device: torch.device, limits: Limits) -> None:
        self.reward = reward.to(device)
        self.device = device
        self.limits = limits
        self._thread = ThreadPoolExecutor(1, "reward")
        self._turn = asyncio.Lock()
        self._held = 0

    def score(self, body: bytes | bytearray) -> list[float | None]:
        """Returns the scores that a request asks for, None where one is not finite.

        Raises:
            Refused: If the request is malformed or beyond a limit, or the reward says what is wrong with it.
        """
        samples, prompts = unpack(body, self.limits)
        try:
            with torch.no_grad():
                scores = self.reward(samples.to(self.device), prompts)
        except ValueError as error:
            # other errors of the reward's code are faults, whose inside no client reads
            if error.__cause__ and not isinstance(error.__cause__, ValueError):
                raise error.__cause__ from None
            raise Refused(str(error), 422) from error
        return [score.item() if score.isfinite() else None for score in scores]

    async def health(self, request: Request) -> JSONResponse:
        """Returns label, scales and direction of the reward."""
        reward = self.reward
        facts = {"label": reward.label, "scales": dict(reward.scales), "higher_is_better": reward.higher_is_better}
        return JSONResponse({**facts, "version": version("rlr")})

    async def answer(self, request: Request) -> JSONResponse:
        """Scores a request when its turn comes, unless its client has left."""
        body = bytearray()
        try:
            await self._receive(request, body)
            return await self._in_turn(request, body)
        finally:
            self._held -= len(body)

    async def _in_turn(self, request: Request, body: bytearray) -> JSONResponse:
        try:
            async with asyncio.timeout(self.limits.seconds), self._turn:
                if await request.is_disconnected():
                    raise Refused("the client left before its turn", 499)
                scores = await asyncio.get_running_loop().run_in_executor(self._thread, self.score, body)
        except TimeoutError as error:
            raise Refused(
                f"the request waited and was scored for more than {self.limits.seconds:g} seconds; send fewer samples at once, or "
                "start the server with a larger max_seconds",
                503,
            ) from error
        return JSONResponse({"scores": scores})

    async def _receive(self, request: Request, body: bytearray) -> None:
        # a web page may send other types to any address without a preflight request
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Refused("the request must have the type application/json", 415)
        declared = request.headers.get("content-length", "0")
        self._weigh(int(declared[:20]) if declared.isdecimal() else 0)
        try:
            async with asyncio.timeout(self.limits.patience):
                async for part in request.stream():
                    self._weigh(len(body) + len(part))
                    self._hold(len(part))
                    body += part
        except ClientDisconnect as error:
            raise Refused("the client left before its request was whole", 499) from error
        except TimeoutError as error:
            raise Refused(
                f"the request did not arrive within {self.limits.patience:g} seconds; send it faster", 408
            ) from error

    def _weigh(self, size: int) -> None:
        if size > self.limits.bytes:
            raise Refused(f"the request has more than {self.limits.bytes} bytes; send fewer samples at once", 413)

    def _hold(self, size: int) -> None:
        """Counts bytes that are kept until their request is answered."""
        if self._held + size > self.limits.held:
            raise Refused(f"requests of {self.limits.held} bytes are waiting already; send this one again later", 503)
        self._held += size


def application(service: Service, token: str | None = None, hosts: Sequence[str] | None = ()) -> Starlette:
    """Returns the ASGI application of a service.

    Args:
        service: Scores the requests.
        token: The secret that requests must show; None asks for no token.
        hosts: The names under which it may be asked, besides this machine's loopback addresses; None allows all names.
    """

    def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        # what is left of a request that did not come in time is not waited for
        return _error(str(error), error.status, {"connection": "close"} if error.status == 408 else None)

    def unknown(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _error(
            f"there is no {request.method} {request.url.path}, but GET /health, GET /openapi.json, POST /score",
            error.status_code,
            error.headers,
        )

    def fault(request: Request, error: Exception) -> JSONResponse:
        return _error(f"{service.reward.label} failed with a {type(error).__name__}; the server's log says why", 500)

    async def described(request: Request) -> JSONResponse:
        return JSONResponse(description(service.limits, token is not None))

    routes = [
        Route("/health", service.health, methods=["GET"]),
        Route("/openapi.json", described, methods=["GET"]),
        Route("/score", service.answer, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {Refused: refused, HTTPException: unknown, Exception: fault}
    guard = Middleware(Guard, token=token, hosts=hosts)
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[guard])


def _error(sentence: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": " ".join(sentence.split())}, status, headers)


def serve(
    reward: Reward,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str | None = None,
    max_batch: int = 64,
    max_pixels: int = 2**24,
    max_megabytes: int = 128,
    max_waiting: int = 64,
    max_files: int = 4096,
    max_seconds: float = 600.0,
    patience: float = 60.0,
    hosts: list[str] | None = None,
    token_variable: str = VARIABLE,
    token_file: str | None = None,
) -> None:
    """Serves a reward until it is interrupted.

    Args:
        reward: The reward.
        host: The address to listen at; the default is reachable from this machine only, another needs a token.
        port: The port.
        device: The device of the reward, such as ``cuda:1``; by default the accelerator if there is one.
        max_batch: The most samples of a request.
        max_pixels: The most pixels of all images of a request together.
        max_megabytes: The most MiB of a request; four times as much is kept of all requests together.
        max_waiting: The most connections at once; further ones get status 503.
        max_files: The most images of a request, those of all frames of all videos together.
        max_seconds: The most seconds that a request waits for its turn and is scored; then it gets status 503.
        patience: The most seconds in which a client must send a request.
        hosts: The names under which the server may be asked. By default a server at a loopback address is asked under those alone,
            and one that asks for a token under any name.
        token_variable: The environment variable that holds the token that requests must show.
        token_file: A file that holds it, in the place of the variable.

    Raises:
        ValueError: If the address is reachable from elsewhere and there is no token.
    """
    token = check_reach(host, port, Token(token_variable, token_file))
    most = max_megabytes * 2**20
    limits = Limits(max_batch, max_pixels, most, max_files, held=4 * most, patience=patience, seconds=max_seconds)
    service = Service(reward, torch.device(device) if device else _accelerator(), limits)
    app = application(service, token, None if token and hosts is None else hosts or ())
    uvicorn.run(app, host=host, port=port, **http_settings(max_waiting, patience))


def http_settings(max_waiting: int, patience: float) -> dict[str, Any]:
    """Returns the settings of uvicorn that bound how many connections there are, and for how long one may say nothing."""
    # uvicorn counts the connection that asks, and refuses it at the limit
    return {"limit_concurrency": max_waiting + 1, "http": impatient(patience), "ws": "none", "access_log": False}


def check_reach(host: str, port: int, token: Token) -> str | None:
    """Returns the token that requests must show; None where no token is set, and only this machine reaches the address.

    Raises:
        ValueError: If the address is reachable from elsewhere and there is no token.
        OSError: If there is no such address.
    """
    secret = token.read()
    # an empty host is all addresses; a name is where it leads
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = {str(address[4][0]).partition("%")[0] for address in found}
    if secret is None and not all(ip_address(address).is_loopback for address in addresses):
        raise ValueError(
            f"host {host}: expected a token for an address that other machines reach, found none in {token.place}; set one, as by "
            f"`export {token.variable}=$(python -c 'import secrets; print(secrets.token_urlsafe(32))')`, or listen at 127.0.0.1"
        )
    return secret


def _accelerator() -> torch.device:
    found = torch.accelerator.current_accelerator(check_available=True)
    return found if found is not None else torch.device("cpu")


class Parser(ArgumentParser):
    """Reports a mistake in one sentence instead of the usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        self.exit(2, f"error: {' '.join(message.split())}\n")
        raise AssertionError("exit returns no more")


def main(args: Sequence[str] | None = None) -> int:
    """Serves the reward that the arguments name, and returns the exit status."""
    words = list(sys.argv[1:] if args is None else args)
    import_names("rlr.rewards")  # a class has a short name once it is imported
    try:
        auto_cli(
            serve, as_positional=False, args=words, prog="python -m rlr.rewards.remote.server", parser_class=Parser
        )
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
