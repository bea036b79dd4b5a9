r"""Stages that a language model writes, through any OpenAI-compatible endpoint; each prompt is sent once."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlr.data.cleaning import trim
from rlr.data.staged.stages import StageWriter, Written, format_stages, read_stages
from rlr.io.atomic import write_whole
from rlr.io.chat import Chat
from rlr.io.http import Client, TransientError, clean
from rlr.io.text import check_text, quote

NAMES = ("coarse", "mid", "fine")
"""The stages that the model is asked for."""

INSTRUCTIONS = """\
You prepare prompts for a text-to-image diffusion model. Its first steps decide the composition, its middle steps the form of \
objects and parts, its last steps the surfaces. Rewrite the user's prompt for each of the three. Keep its subject, say nothing \
that contradicts it, and write at most 40 words each. Answer with one JSON object and nothing else: \
{"coarse": "what is where, large shapes, background", "mid": "form, number and proportion of the parts", \
"fine": "textures, small details, light"}"""

KEPT = 20
"""The number of answers after which the file is written, so that few are lost if the process is killed."""

LARGEST = 2**20
"""The number of bytes of an answer that are read. Three stages are some hundred."""


class Endpoint(StageWriter):
    r"""Requests the three stages of each prompt from a language model, ``POST url/chat/completions``, and caches them.

    A prompt in the cache is not requested again, so a run is repeatable. The cache may be read and corrected by hand, and
    :class:`~rlr.data.staged.stages.StageFile` reads it, too. Failed connections, time-outs, the statuses 429 and 5xx and
    answers without the three stages are retried, attempt :math:`k + 1` :math:`2^k d` seconds after attempt :math:`k`.
    Requests to this machine (``localhost``, ``127.0.0.1``, ``::1``) never go through a proxy.

    Args:
        url: The address of the endpoint, such as ``http://127.0.0.1:8000/v1``.
        model: The name of the model there.
        cache: The ``.jsonl`` file of the answers, of one model only.
        key: The environment variable that holds the API key; not needed if the endpoint asks for no key. The key itself
            is written nowhere.
        temperature: The sampling temperature.
        timeout: How long the endpoint may be silent, in seconds.
        retries: The number of further attempts.
        delay: The first delay :math:`d`, in seconds.

    Raises:
        ValueError: If ``url`` is not an address of HTTP, or a number is out of range.
    """

    def __init__(
        self,
        url: str,
        model: str,
        cache: str,
        key: str = "OPENAI_API_KEY",
        temperature: float = 0.0,
        timeout: float = 60.0,
        retries: int = 3,
        delay: float = 1.0,
    ) -> None:
        if temperature < 0:
            raise ValueError(f"Endpoint.temperature: expected a number >= 0, found {temperature}")
        self.chat = Chat(Client(url, timeout, retries, delay, LARGEST), model, key)
        self.model, self.cache, self.temperature = model, Path(cache).expanduser(), temperature

    def write(self, prompts: Sequence[str]) -> list[tuple[str, ...]]:
        """Returns the stages of each prompt, from the cache or from the model.

        Raises:
            ConnectionError: If no attempt brought a usable answer; earlier answers are cached.
            ValueError: If the endpoint refuses, or another model wrote the cache.
        """
        known = self._known()
        # as the cache is read
        trimmed = [trim(prompt) for prompt in prompts]
        missing = [prompt for prompt in dict.fromkeys(trimmed) if prompt not in known]
        for at in range(0, len(missing), KEPT):
            self._add(known, missing[at : at + KEPT])
        return [known[prompt].stages for prompt in trimmed]

    def _known(self) -> dict[str, Written]:
        known = read_stages(self.cache) if self.cache.exists() else {}
        for prompt, written in known.items():
            # lines without a writer are written by hand
            if written.writer not in (None, self.model):
                raise ValueError(
                    f"{self.cache} has stages of the prompt {quote(prompt)} by the model {written.writer}, and model is "
                    f"{self.model}; set cache to another file"
                )
        return known

    def _add(self, known: dict[str, Written], prompts: Sequence[str]) -> None:
        before = len(known)
        try:
            for prompt in prompts:
                known[prompt] = Written(self._ask(prompt), self.model)
        finally:
            if len(known) > before:
                write_whole(self.cache, format_stages(known).encode())

    def _ask(self, prompt: str) -> tuple[str, ...]:
        messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": prompt}]
        client = self.chat.client
        try:
            return self.chat.complete(messages, stages_of, {"temperature": self.temperature})
        except ConnectionError as error:
            raise ConnectionError(
                f"the endpoint {client.url} gave no stages of the prompt {quote(prompt)} in {client.retries + 1} "
                f"attempts, at last: {error}; check the model there, raise timeout or retries, or write a line of "
                f"{self.cache} by hand"
            ) from error


def stages_of(answer: bytes) -> tuple[str, ...]:
    """Returns the three texts in a completion, with or without other text around their JSON object.

    Raises:
        TransientError: If there are no three texts.
    """
    try:
        content: Any = json.loads(answer)["choices"][0]["message"]["content"]
        found = json.loads(content[content.index("{") : content.rindex("}") + 1])
        stages = tuple(check_text(" ".join(found[name].split()), name) for name in NAMES)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        stages = ()
    if not stages or not all(stages):
        said = clean(answer.decode(errors="replace"))
        raise TransientError(f"the answer holds no {', '.join(NAMES)}: {said}")
    return stages
