"""Real servers on free ports of this machine, in a thread of the test's own process."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

import torch
import uvicorn

from rlr.rewards import Reward
from rlr.rewards.remote.protocol import Limits
from rlr.rewards.remote.server import Service, application, http_settings


@contextmanager
def running(app: Any, max_waiting: int = 64, patience: float = 60.0) -> Iterator[str]:
    """Yields the address of an ASGI application."""
    settings = http_settings(max_waiting, patience)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off", **settings))
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def serving(reward: Reward, token: str | None = None, hosts: Sequence[str] | None = (), **limits: Any) -> Any:
    """Yields the address of a reward's server."""
    bounds = Limits(**limits)
    app = application(Service(reward, torch.device("cpu"), bounds), token, hosts)
    return running(app, patience=bounds.patience)


class Scripted:
    """A server that states the facts of a reward, and answers requests to score from a script.

    Args:
        answers: Pairs of status and body, one a request; the last one is repeated.
        facts: What is stated of the reward.
    """

    def __init__(self, *answers: tuple[int, Any], facts: Any = None) -> None:
        self.answers = list(answers)
        self.facts = {"label": "Scripted", "scales": {}, "higher_is_better": True} if facts is None else facts
        self.requests: list[dict[str, Any]] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        status, answer = (200, self.facts) if scope["path"] == "/health" else self._score(body)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": data})

    def _score(self, body: bytes) -> tuple[int, Any]:
        self.requests.append(json.loads(body))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
