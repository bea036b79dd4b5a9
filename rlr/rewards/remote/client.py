"""A reward that a server computes, which may have another environment or another GPU."""

import json
import math
from collections.abc import Sequence
from http.client import HTTPException
from time import sleep
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from torch import Tensor

from rlr.rewards.base import Reward
from rlr.rewards.remote.protocol import pack

LONGEST = 500
"""How many characters of a server's words are repeated."""


class Unavailable(Exception):
    """A fault that may pass, and why."""


class Connection:
    r"""Asks a server, and asks again where the fault may pass.

    That is a failed connection, a time-out, and the statuses 429 and 5xx. Attempt :math:`k + 1` follows
    :math:`2^k d` seconds after attempt :math:`k`, :math:`k = 0, 1, \dots`

    Args:
        url: Where the server is.
        timeout: For how many seconds it may be silent.
        retries: How many further attempts to make.
        delay: The first delay :math:`d`, in seconds.
    """

    def __init__(self, url: str, timeout: float, retries: int, delay: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"a reward server's address begins with http:// or https://, and {url!r} does not")
        if timeout <= 0 or retries < 0 or delay < 0:
            raise ValueError(
                "a reward server needs timeout > 0, retries >= 0 and delay >= 0, and got "
                f"{timeout}, {retries} and {delay}"
            )
        self.url, self.timeout, self.retries, self.delay = url.rstrip("/"), timeout, retries, delay

    def ask(self, path: str, message: dict[str, Any] | None = None) -> dict[str, Any]:
        """Returns the server's answer to a message, or to a bare question.

        Raises:
            ConnectionError: If the last attempt failed, too.
            ValueError: If the server refuses the message, or does not answer with a JSON object.
        """
        for attempt in range(self.retries + 1):
            try:
                return self._once(path, message)
            except Unavailable as fault:
                reason = fault
            if attempt < self.retries:
                sleep(self.delay * 2**attempt)
        raise ConnectionError(
            f"the reward server {self.url} failed {self.retries + 1} times, at last with: {reason}; check that it runs "
            "and is reached from here, or raise timeout or retries"
        )

    def _once(self, path: str, message: dict[str, Any] | None) -> dict[str, Any]:
        data = None if message is None else json.dumps(message).encode()
        request = Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=self.timeout) as answer:
                return self._object(answer.read())
        except HTTPError as error:
            with error:
                said = _words(error)
            if error.code == 429 or error.code >= 500:
                raise Unavailable(f"status {error.code}, {said}") from error
            raise ValueError(f"the reward server {self.url} refuses with status {error.code}: {said}") from error
        except (OSError, HTTPException) as error:
            raise Unavailable(str(getattr(error, "reason", error)) or type(error).__name__) from error

    def _object(self, body: bytes) -> dict[str, Any]:
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ValueError(f"{self.url} answers with no JSON object, so it is no reward server; check the url")
        return found


class Remote(Reward):
    r"""The reward of a server that runs ``python -m rlr.rewards.remote.server``.

    Pixels are rounded to 8 bits on their way, so there is no gradient. A score that the server does not have, or that
    is not finite, is NaN here, and so is that of a sample whose pixels are not finite: the update that it belongs to
    is then skipped whole. An answer of another number of scores is an error.

    Args:
        url: Where the server is, such as ``http://127.0.0.1:8000``.
        batch: How many samples to send at once.
        timeout: For how many seconds the server may be silent: longer than it takes to score the batches of all
            processes that train.
        retries: How many further attempts to make after a failed connection, a time-out, or a server's own fault.
        delay: The seconds before the first of them; each further delay is twice as long.

    Raises:
        ConnectionError: If the server cannot be reached.
        ValueError: If it refuses, or is no reward server.
    """

    differentiable = False
    supports_video = True

    def __init__(self, url: str, batch: int = 16, timeout: float = 120.0, retries: int = 5, delay: float = 1.0) -> None:
        super().__init__()
        if batch < 1:
            raise ValueError(f"Remote sends at least one sample at once, and got batch={batch}")
        self.batch = batch
        self.connection = Connection(url, timeout, retries, delay)
        facts = self.connection.ask("/health")
        missing = {"label", "scales", "higher_is_better"} - facts.keys()
        if missing:
            raise ValueError(f"{url} does not tell its {min(missing)}, so it is no reward server; check the url")
        self._label = str(facts["label"])
        self.scales = {str(name): float(factor) for name, factor in facts["scales"].items()}
        self.higher_is_better = bool(facts["higher_is_better"])

    @property
    def label(self) -> str:
        """That of the server's reward."""
        return self._label

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        r"""Returns one score a sample, NaN where there is none.

        Args:
            samples: Pixels in [0, 1], with shape :math:`(B, 3, H, W)`, or :math:`(B, F, 3, H, W)` for videos.
            prompts: The :math:`B` prompts.

        Returns:
            The scores, with shape :math:`(B)`.
        """
        self._check(samples, prompts)
        whole = samples.detach().flatten(1).isfinite().all(1)
        scores: list[float] = []
        for i in range(0, len(prompts), self.batch):
            scores += self._score(samples[i : i + self.batch].nan_to_num(0), prompts[i : i + self.batch])
        result = torch.tensor(scores, dtype=samples.dtype, device=samples.device)
        return result.where(result.isfinite() & whole, math.nan)

    def _score(self, samples: Tensor, prompts: Sequence[str]) -> list[float]:
        scores = self.connection.ask("/score", pack(samples, prompts)).get("scores")
        if not isinstance(scores, list) or len(scores) != len(prompts):
            found = f"{len(scores)} scores" if isinstance(scores, list) else "no scores"
            raise ValueError(
                f"the reward server {self.connection.url} answers with {found} for {len(prompts)} samples; "
                "it must answer with one a sample, null where it has none"
            )
        return [float(s) if isinstance(s, float | int) and not isinstance(s, bool) else math.nan for s in scores]

    def _check(self, samples: Tensor, prompts: Sequence[str], slack: float = 1e-2) -> None:
        if samples.ndim not in (4, 5) or samples.shape[-3] != 3 or len(samples) != len(prompts):
            raise ValueError(
                f"Remote got samples of shape {tuple(samples.shape)} and {len(prompts)} prompts; give (B, 3, H, W) or "
                "(B, F, 3, H, W) and B prompts"
            )
        if ((samples < -slack) | (samples > 1 + slack)).any():
            raise ValueError(
                "Remote got pixels outside of [0, 1], which rewards read; map and clamp them, exactly once"
            )


def _words(error: HTTPError) -> str:
    """Returns the sentence of a server's error, on one line; of another program's, its reason."""
    try:
        said = str(json.loads(error.read())["error"])
    except (OSError, HTTPException, ValueError, TypeError, KeyError):
        said = str(error.reason)
    return " ".join(said.split())[:LONGEST]
