"""A reward that a server computes, which may have another environment or another GPU."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlr.distributed import rank
from rlr.io.http import Client, StatusError, clean, read_json
from rlr.rewards.base import Reward
from rlr.rewards.remote.dispatcher import Dispatcher
from rlr.rewards.remote.protocol import pack
from rlr.rewards.remote.token import VARIABLE, Token


class Facts(NamedTuple):
    """What a server states of its reward.

    Args:
        label: What to call the score.
        scales: Factors to published scales, by name.
        higher_is_better: Whether a higher score is better.
    """

    label: str
    scales: dict[str, float]
    higher_is_better: bool


class Chunk(NamedTuple):
    """Samples that are sent in one request.

    Args:
        samples: Pixels in [0, 1], with shape :math:`(b, 3, H, W)` or :math:`(b, F, 3, H, W)`.
        prompts: The :math:`b` prompts.
    """

    samples: Tensor
    prompts: Sequence[str]


FACTS = Facts._fields
"""What ``GET /health`` must return."""
MAX_LABEL = 100
"""The number of characters of a label or of a scale's name."""


class Connection:
    """Asks a reward server once, through a :class:`~rlr.io.http.Client`, and shows it the token."""

    def __init__(self, url: str, timeout: float, token: Token) -> None:
        self.client = Client(url, timeout, retries=0)
        self.token = token

    @property
    def url(self) -> str:
        """The address of the server."""
        return self.client.url

    def ask(self, path: str, message: object = None) -> dict[str, Any]:
        """Returns the server's answer to a message, or to a GET request without a message.

        Raises:
            ConnectionError: If no answer came, and another attempt may bring one.
            ValueError: If the server refuses the message, or does not answer with a JSON object.
        """
        try:
            return self.client.ask(path, message, self._object, self.token.headers())
        except ConnectionError as error:
            # without the error that it follows from, whose text may repeat the token
            raise ConnectionError(self.token.hide(str(error))) from None
        except StatusError as error:
            looked = f" (the token was looked for in {self.token.place})" if error.status == 401 else ""
            raise ValueError(
                f"the reward server {self.url} refuses with status {error.status}: {self.token.hide(error.text)}{looked}"
            ) from None

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
    r"""The reward of one or several servers that run ``python -m rlr.rewards.remote.server``.

    Pixels are sent as 8-bit numbers, so there is no gradient. A score that the server does not have, or that
    is not finite, is NaN, and training skips the whole update that it belongs to. An answer with another number of scores
    is an error. Requests to this machine never go through a proxy.

    Several servers compute one reward. Each scores ``batch`` samples at a time and then takes the next ones, so a slow
    one scores fewer; the samples of one that fails go to the others, and it is asked again later.

    Args:
        url: The address of the server, such as ``http://127.0.0.1:8000``, or a list of addresses.
        batch: The most samples to send at once; all servers get some of a small batch.
        timeout: The number of seconds that the server may be silent: longer than it takes to score the batches of all
            processes that train.
        retries: The number of further attempts after a failed connection, a timeout, or a server's own fault.
        delay: The seconds before the first of them; each further delay is twice as long.
        token_variable: The environment variable that holds the server's token; not needed if it asks for none. The token itself is
            read for each request, and is in no config, log or checkpoint.
        token_file: A file that holds the token, in the place of the variable.

    Raises:
        ConnectionError: If no server can be reached.
        ValueError: If one refuses, or is no reward server, or two compute different rewards.
    """

    differentiable = False
    supports_video = True

    def __init__(
        self,
        url: list[str] | str,
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
        if retries < 0 or not delay >= 0:
            raise ValueError(f"Remote: expected retries >= 0 and delay >= 0, got retries={retries} and delay={delay}")
        self.batch = batch
        token = Token(token_variable, token_file)
        servers = {one.url: one for one in (Connection(url, timeout, token) for url in _addresses(url))}
        self.servers: Dispatcher[Connection, Chunk, list[float]] = Dispatcher(
            servers, self._score, self._probe, retries, delay
        )
        self._stated: dict[str, tuple[str, Facts]] = {}
        self.servers.connect()
        _, (self._label, self.scales, self.higher_is_better) = self._stated["first"]

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
        size = max(1, min(self.batch, math.ceil(len(prompts) / len(self.servers.servers))))
        chunks = [Chunk(samples[i : i + size], prompts[i : i + size]) for i in range(0, len(prompts), size)]
        scores = [score for found in self.servers.run(chunks, first=rank()) for score in found]
        result = torch.tensor(scores, dtype=samples.dtype, device=samples.device)
        return result.where(result.isfinite(), math.nan)

    def _score(self, connection: Connection, chunk: Chunk) -> list[float]:
        """Returns the scores of a chunk by one server."""
        scores = connection.ask("/score", pack(*chunk)).get("scores")
        if not isinstance(scores, list) or len(scores) != len(chunk.prompts):
            found = f"{len(scores)} scores" if isinstance(scores, list) else "no scores"
            raise ValueError(
                f"the reward server {connection.url}: expected one score a sample, null for a missing one, got {found} "
                f"for {len(chunk.prompts)} samples"
            )
        return [read_number(score) for score in scores]

    def _probe(self, connection: Connection) -> None:
        """Asks a server what its reward is, which must be that of the first server that answered."""
        url = connection.url
        facts = read_facts(connection.ask("/health"), url)
        first, expected = self._stated.setdefault("first", (url, facts))
        for name in FACTS:
            if getattr(facts, name) != getattr(expected, name):
                raise ValueError(
                    f"the reward servers {first} and {url}: expected one reward, got the {name} {getattr(expected, name)!r} "
                    f"from the first and {getattr(facts, name)!r} from the second; serve one config at all addresses"
                )

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


def _addresses(url: Sequence[str] | str) -> list[str]:
    urls = [url] if isinstance(url, str) else [str(one) for one in url]
    if not urls or len({one.rstrip("/") for one in urls}) < len(urls):
        raise ValueError(f"Remote.url: expected an address, or a list of different addresses, got {url!r}")
    return urls


def read_facts(facts: Mapping[str, Any], url: str) -> Facts:
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
    return Facts(label, {name: read_number(factor) for name, factor in scales.items()}, higher)


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
