"""A reward as a server: ``python -m rlr.rewards.remote.server --config configs/serve/brightness.yaml``.

The config's ``reward`` is written as in the config of a training, and every option of the server can stand beside it.
:class:`~rlr.rewards.remote.client.Remote` is the client, :mod:`rlr.rewards.remote.protocol` the protocol.

The server has no password: anyone who reaches the port can have images scored. So the default address is reachable from
this machine only. From other machines, use an SSH tunnel or a private network.
"""

import asyncio
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, NoReturn

import torch
from jsonargparse import ArgumentParser, auto_cli

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route
except ImportError as error:
    raise ModuleNotFoundError(
        f"a server of rewards needs starlette and uvicorn ({error}); pip install 'rlr[serve]'"
    ) from error

from rlr.lazy import import_names
from rlr.rewards.base import Reward
from rlr.rewards.remote.protocol import Limits, Refused, unpack


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

    def score(self, body: bytes) -> list[float | None]:
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
        body = await self._body(request)
        async with self._turn:
            if await request.is_disconnected():
                return JSONResponse({"error": "the client left before its turn"}, 499)
            scores = await asyncio.get_running_loop().run_in_executor(self._thread, self.score, body)
        return JSONResponse({"scores": scores})

    async def _body(self, request: Request) -> bytes:
        # a web page may send other types to any address without a preflight request
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Refused("the request must have the type application/json", 415)
        declared = request.headers.get("content-length", "0")
        body = bytearray()
        self._weigh(int(declared) if declared.isdecimal() else 0)
        try:
            async for part in request.stream():
                body += part
                self._weigh(len(body))
        except ClientDisconnect as error:
            raise Refused("the client left before its request was whole", 499) from error
        return bytes(body)

    def _weigh(self, size: int) -> None:
        if size > self.limits.bytes:
            raise Refused(f"the request has more than {self.limits.bytes} bytes; send fewer samples at once", 413)


def application(service: Service) -> Starlette:
    """Returns the ASGI application of a service."""

    def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        return _error(str(error), error.status)

    def unknown(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _error(
            f"there is no {request.method} {request.url.path}, but GET /health, POST /score", error.status_code
        )

    def fault(request: Request, error: Exception) -> JSONResponse:
        return _error(f"{service.reward.label} failed with a {type(error).__name__}; the server's log says why", 500)

    routes = [Route("/health", service.health, methods=["GET"]), Route("/score", service.answer, methods=["POST"])]
    handlers: dict[Any, Any] = {Refused: refused, HTTPException: unknown, Exception: fault}
    return Starlette(routes=routes, exception_handlers=handlers)


def _error(sentence: str, status: int) -> JSONResponse:
    return JSONResponse({"error": " ".join(sentence.split())}, status)


def serve(
    reward: Reward,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str | None = None,
    max_batch: int = 64,
    max_pixels: int = 2**24,
    max_megabytes: int = 128,
    max_waiting: int = 64,
) -> None:
    """Serves a reward until it is interrupted.

    Args:
        reward: The reward.
        host: The address to listen at; the default is reachable from this machine only.
        port: The port.
        device: The device of the reward, such as ``cuda:1``; by default the accelerator if there is one.
        max_batch: The most samples of a request.
        max_pixels: The most pixels of all images of a request together.
        max_megabytes: The most MiB of a request.
        max_waiting: The most connections at once; further ones get status 503.
    """
    limits = Limits(max_batch, max_pixels, max_megabytes * 2**20)
    app = application(Service(reward, torch.device(device) if device else _accelerator(), limits))
    uvicorn.run(app, host=host, port=port, limit_concurrency=max_waiting, access_log=False)


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
