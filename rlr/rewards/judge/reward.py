r"""The reward of a vision-language model behind an OpenAI-compatible endpoint, which is asked once about each sample."""

import base64
import hashlib
import io
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor

from rlr.io.chat import Chat, Unreadable, UnreadableAnswer
from rlr.io.http import Client, clean
from rlr.io.keyed_file import KeyedFile, digest, pass_over
from rlr.io.text import quote
from rlr.rewards.base import Reward
from rlr.rewards.judge.questions import FinalScore, Question
from rlr.rewards.pixels import Image, to_images

LARGEST = 2**20
"""The number of bytes of an answer that are read."""

Item = tuple[str, tuple[bytes, ...]]
"""A prompt, and the PNG files that are judged."""


class VLMJudge(Reward):
    r"""The score that a vision-language model gives, ``POST url/chat/completions``.

    Failed connections, time-outs, the statuses 429 and 5xx and answers without a score are asked for again, the first time
    after a second and then after twice as long each time. Answers are cached by image, prompt, question and model, not by
    address. Images are sent as PNG files, so scores are those of 8-bit pixels and have no gradient.

    Args:
        url: The address of the endpoint, such as ``http://127.0.0.1:8000/v1``. Addresses of this machine are never asked
            through a proxy.
        model: The name of the model there.
        question: The question; by default :class:`~rlr.rewards.judge.questions.FinalScore`.
        cache: The ``.jsonl`` file of the scores; None for no cache. It pays where the same images are scored again, as in
            evaluation; all of it is written again with each batch.
        key: The environment variable that holds the API key; not needed if the endpoint asks for no key. The key itself is
            written nowhere.
        concurrency: The most requests at a time.
        timeout: How long the endpoint may be silent, in seconds.
        retries: The number of further attempts.
        size: The side of the square to which images are resized, bicubic; None sends them as they are.
        frames: The number of evenly spaced frames of a video that are sent.
        fallback: The score of a sample whose answer cannot be read, with a warning; None raises an error.

    Raises:
        ValueError: If a number is out of range, or ``url`` is not an address.
    """

    differentiable = False
    supports_video = True

    def __init__(
        self,
        url: str,
        model: str,
        question: Question | None = None,
        cache: str | None = None,
        key: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 3,
        size: int | None = None,
        frames: int = 8,
        fallback: float | None = None,
    ) -> None:
        super().__init__()
        if concurrency < 1 or frames < 1 or (size is not None and size < 1):
            raise ValueError(
                f"VLMJudge: expected concurrency, frames and size of at least 1, got {concurrency}, {frames} and {size}"
            )
        self.chat = Chat(Client(url, timeout, retries, max_bytes=LARGEST), model, key)
        self.question = question or FinalScore()
        self.cache = KeyedFile(Path(cache).expanduser(), pass_over) if cache else None
        self.concurrency, self.size, self.frames, self.fallback = concurrency, size, frames, fallback

    @property
    def label(self) -> str:
        """That of the question."""
        return self.question.label

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        r"""Returns one score a sample.

        Raises:
            ConnectionError: If no attempt brought a score of a sample; the others are cached.
            ValueError: If the endpoint refuses.
        """
        images = to_images(samples, prompts, self.label)
        items = [(prompt, self._files(image)) for image, prompt in zip(images, prompts, strict=True)]
        scores = self._scores(items)
        return torch.tensor([scores[item] for item in items], dtype=samples.dtype, device=samples.device)

    def _files(self, image: Image) -> tuple[bytes, ...]:
        """Returns the PNG file of an image, or those of the chosen frames of a video."""
        if image.ndim == 3:
            return (_png(image, self.size),)
        count = min(self.frames, len(image))
        return tuple(_png(image[k * len(image) // count], self.size) for k in range(count))

    def _scores(self, items: Sequence[Item]) -> dict[Item, float]:
        """Returns the score of each item; each one is asked about once, whatever the batch repeats."""
        keys = {item: self._key(item) for item in items}
        scores = {item: float(score) for item, score in self._cached(keys)}
        futures = self._ask_all([item for item in keys if item not in scores])
        new = {item: future.result() for item, future in futures.items() if _brought(future)}
        # an unreadable answer may be a better one the next time
        readable = [(keys[item], score) for item, score in new.items() if not math.isnan(score)]
        if self.cache is not None and readable:
            self.cache.update(readable)
        for future in futures.values():
            if not future.cancelled():
                # raises what the request raised
                future.result()
        return scores | {item: self._or_fallback(score) for item, score in new.items()}

    def _cached(self, keys: Mapping[Item, Mapping[str, Any]]) -> Iterator[tuple[Item, float]]:
        if self.cache is not None:
            found = ((item, self.cache.get(key)) for item, key in keys.items())
            yield from ((item, score) for item, score in found if isinstance(score, int | float))

    def _ask_all(self, items: Sequence[Item]) -> dict[Item, Future[float]]:
        """Returns finished requests; after an error, those that waited are canceled."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = {item: pool.submit(self._ask, item) for item in items}
            wait(futures.values(), return_when=FIRST_EXCEPTION)
            pool.shutdown(cancel_futures=True)
        return futures

    def _ask(self, item: Item) -> float:
        """Returns the score of an item, NaN if its answer cannot be read and there is a fallback."""
        prompt, files = item
        images = [{"type": "image_url", "image_url": {"url": _url(file)}} for file in files]
        content = [*images, {"type": "text", "text": self.question.text(prompt)}]
        client = self.chat.client
        try:
            return self.chat.complete([{"role": "user", "content": content}], self._read, self.question.settings)
        except ConnectionError as error:
            if isinstance(error, UnreadableAnswer) and self.fallback is not None:
                warnings.warn(
                    f"{self.label} of the prompt {quote(prompt)}: {error}; its score is {self.fallback}", stacklevel=2
                )
                return math.nan
            raise ConnectionError(
                f"the judge {self.chat.model} at {client.url} gave no score for the prompt {quote(prompt)} in "
                f"{client.retries + 1} attempts, at last: {error}; check the model there, raise timeout or retries, or set "
                "fallback for answers without a score"
            ) from error

    def _read(self, body: bytes) -> float:
        try:
            choice = json.loads(body)["choices"][0]
        except (ValueError, LookupError, TypeError, RecursionError):
            choice = None
        if not isinstance(choice, Mapping):
            raise Unreadable(f"expected a completion with choices, got {clean(body[:200].decode(errors='replace'))}")
        return self.question.read(choice)

    def _or_fallback(self, score: float) -> float:
        return self.fallback if math.isnan(score) and self.fallback is not None else score

    def _key(self, item: Item) -> dict[str, Any]:
        prompt, files = item
        images = [hashlib.sha256(file).hexdigest() for file in files]
        asked = {
            "question": self.question.template,
            "settings": dict(self.question.settings),
            **_read_by(self.question),
        }
        return {"prompt": prompt, "images": images, "model": self.chat.model, "asked": digest(asked)[:16]}


def _brought(future: Future[float]) -> bool:
    return not future.cancelled() and future.exception() is None


def _read_by(question: Question) -> dict[str, Any]:
    """Returns what decides how an answer is read."""
    plain = {
        name: value for name, value in vars(question).items() if isinstance(value, bool | int | float | str | dict)
    }
    return {"class": type(question).__qualname__, **plain}


def _png(image: Image, size: int | None) -> bytes:
    drawn = PILImage.fromarray(image)
    if size is not None:
        drawn = drawn.resize((size, size))
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _url(file: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(file).decode('ascii')}"
