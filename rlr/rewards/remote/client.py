"""A reward that a server computes, which may have another environment or another GPU."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlr.io.http import Client, StatusError, clean, read_json
from rlr.rewards.base import Reward
from rlr.rewards.remote.protocol import pack
from rlr.rewards.remote.token import VARIABLE, Token

FACTS = ("label", "scales", "higher_is_better")
"""What ``GET /health`` must return."""
MAX_LABEL = 100
"""The number of characters of a label or of a scale's name."""


class Connection:
    """Asks a reward server through a :class:`~rlr.io.http.Client`, whose arguments it takes, and shows it the token."""

    def __init__(self, url: str, timeout: float, retries: int, delay: float, token: Token) -> None:
        self.client = Client(url, timeout, retries, delay)
        self.token = token

    @property
    def url(self) -> str:
        """The address of the server."""
        return self.client.url

    def ask(self, path: str, message: object = None) -> dict[str, Any]:
        """Returns the server's answer to a message, or to a GET request without a message.

        Raises:
            ConnectionError: If the last attempt failed, too.
            ValueError: If the server refuses the message, or does not answer with a JSON object.
        """
        try:
            found = self.client.ask(path, message, self._object, self.token.headers())
        except ConnectionError as error:
            # without the error that it follows from, whose text may repeat the token
            raise ConnectionError(
                f"the reward server {self.url} failed {self.client.retries + 1} times, at last with: "
                f"{self.token.hide(str(error))}; check that it runs and is reached from here, or raise timeout or retries"
            ) from None
        except StatusError as error:
            looked = f" (the token was looked for in {self.token.place})" if error.status == 401 else ""
            raise ValueError(
                f"the reward server {self.url} refuses with status {error.status}: {self.token.hide(error.text)}{looked}"
            ) from None
        return found

    def _object(self, body: bytes) -> dict[str, Any]:
        try:
            found = read_json(body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ValueError(
                f"{self.url}: expected a JSON object, got another answer, so this is no reward server; check the url"
            )
        return found


class Remote(Reward):
    r"""The reward of a server that runs ``python -m rlr.rewards.remote.server``.

    Pixels are sent as 8-bit numbers, so there is no gradient. A score that the server does not have, or that
    is not finite, is NaN, and training skips the whole update that it belongs to. An answer with another number of scores
    is an error. Requests to this machine never go through a proxy.

    Args:
        url: The address of the server, such as ``http://127.0.0.1:8000``.
        batch: The number of samples to send at once.
        timeout: The number of seconds that the server may be silent: longer than it takes to score the batches of all
            processes that train.
        retries: The number of further attempts after a failed connection, a timeout, or a server's own fault.
        delay: The seconds before the first of them; each further delay is twice as long.
        token_variable: The environment variable that holds the server's token; not needed if it asks for none. The token itself is
            read for each request, and is in no config, log or checkpoint.
        token_file: A file that holds the token, in the place of the variable.

    Raises:
        ConnectionError: If the server cannot be reached.
        ValueError: If it refuses, or is no reward server.
    """

    differentiable = False
    supports_video = True

    def __init__(
        self,
        url: str,
        batch: int = 16,
        timeout: float = 120.0,
        retries: int = 5,
        delay: float = 1.0,
        token_variable: str = VARIABLE,
        token_file: str | None = None,
    ) -> None:
        super().__init__()
        if batch < 1:
            raise ValueError(f"Remote.batch: expected at least 1, got {batch}")
        self.batch = batch
        self.connection = Connection(url, timeout, retries, delay, Token(token_variable, token_file))
        self._label, self.scales, self.higher_is_better = read_facts(self.connection.ask("/health"), url)

    @property
    def label(self) -> str:
        """The label of the server's reward."""
        return self._label

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        r"""Returns one score a sample, NaN where the server has no score.

        Args:
            samples: Pixels in [0, 1], with shape :math:`(B, 3, H, W)`, or :math:`(B, F, 3, H, W)` for videos.
            prompts: The :math:`B` prompts.

        Returns:
            The scores, with shape :math:`(B)`.
        """
        self._check(samples, prompts)
        scores: list[float] = []
        for i in range(0, len(prompts), self.batch):
            scores += self._score(samples[i : i + self.batch], prompts[i : i + self.batch])
        result = torch.tensor(scores, dtype=samples.dtype, device=samples.device)
        return result.where(result.isfinite(), math.nan)

    def _score(self, samples: Tensor, prompts: Sequence[str]) -> list[float]:
        scores = self.connection.ask("/score", pack(samples, prompts)).get("scores")
        if not isinstance(scores, list) or len(scores) != len(prompts):
            found = f"{len(scores)} scores" if isinstance(scores, list) else "no scores"
            raise ValueError(
                f"the reward server {self.connection.url}: expected one score a sample, null for a missing one, got {found} "
                f"for {len(prompts)} samples"
            )
        return [read_number(score) for score in scores]

    def _check(self, samples: Tensor, prompts: Sequence[str], slack: float = 1e-2) -> None:
        if samples.ndim not in (4, 5) or samples.shape[-3] != 3 or len(samples) != len(prompts):
            raise ValueError(
                "Remote: expected samples of shape (B, 3, H, W) or (B, F, 3, H, W) and B prompts, got shape "
                f"{tuple(samples.shape)} and {len(prompts)} prompts"
            )
        if ((samples < -slack) | (samples > 1 + slack)).any():
            raise ValueError(
                "Remote: expected pixels in [0, 1], got pixels outside of [0, 1]; map and clamp the pixels exactly once"
            )


def read_number(value: object) -> float:
    """Returns a number of a server's answer, NaN for anything else and for an integer beyond the range of a float."""
    if not isinstance(value, float | int) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def read_facts(facts: Mapping[str, Any], url: str) -> tuple[str, dict[str, float], bool]:
    """Returns label, scales and direction of a server's reward.

    Raises:
        ValueError: If one is missing, or is not what it must be.
    """
    for name in FACTS:
        if name not in facts:
            raise ValueError(
                f"{url}/health: expected the {name} of a reward, got none, so this is no reward server; check the url"
            )
    label, scales, higher = (facts[name] for name in FACTS)
    _expect(_is_name(label), "label", f"a string of 1 to {MAX_LABEL} printable characters", label, url)
    _expect(_is_scales(scales), "scales", "finite numbers by name", scales, url)
    _expect(isinstance(higher, bool), "higher_is_better", "true or false", higher, url)
    return label, {name: read_number(factor) for name, factor in scales.items()}, higher


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_LABEL and value.isprintable()


def _is_scales(value: object) -> bool:
    return isinstance(value, dict) and all(_is_name(k) and math.isfinite(read_number(v)) for k, v in value.items())


def _expect(met: bool, name: str, expected: str, found: object, url: str) -> None:
    if not met:
        raise ValueError(
            f"{url}/health: expected {expected} as {name}, got {clean(ascii(found))[:80]}; check the url, or correct the "
            "server's reward"
        )
