"""A server that completes chats from a script, on a free port of this machine."""

import json
from collections.abc import Callable
from typing import Any

from tests.rewards.server import running as running


class Completions:
    """Answers each request from a script, and remembers requests and their headers.

    Args:
        answers: Pairs of a status and a body, one a request; the last one is repeated. A body may be a function of the
            user's words.
    """

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []

    @property
    def asked(self) -> list[str]:
        """The user's words in each request."""
        return [request["messages"][-1]["content"] for request in self.requests]

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.requests.append(json.loads(body))
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self.paths.append(scope["path"])
        status, answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        words = answer(self.asked[-1]) if isinstance(answer, Callable) else answer  # type: ignore[arg-type]
        data = words if isinstance(words, bytes) else json.dumps(words).encode()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": data})


def completion(content: object) -> dict[str, Any]:
    """What an endpoint answers with."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}


def stated(prompt: str) -> dict[str, Any]:
    """Three stages of a prompt, within the words and the fence that models like to put around them."""
    stages = {"fine": f"{prompt} 3", "coarse": f"{prompt}\n1", "mid": f"{prompt} 2"}
    return completion(f"Sure! Here they are:\n```json\n{json.dumps(stages)}\n```")
