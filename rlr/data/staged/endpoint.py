r"""Stages that a language model writes, at any endpoint that speaks as OpenAI's does; each prompt is asked for once."""

import json
import os
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from time import sleep
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rlr.data.staged.stages import StageWriter, Written, format_stages, read_stages
from rlr.io.atomic import write_whole

NAMES = ("coarse", "mid", "fine")
"""The stages that the model is asked for."""

INSTRUCTIONS = """\
You prepare prompts for a text-to-image diffusion model. Its first steps decide the composition, its middle steps the form of \
objects and parts, its last steps the surfaces. Rewrite the user's prompt for each of the three. Keep its subject, say nothing \
that contradicts it, and write at most 40 words each. Answer with one JSON object and nothing else: \
{"coarse": "what is where, large shapes, background", "mid": "form, number and proportion of the parts", \
"fine": "textures, small details, light"}"""

KEPT = 20
"""After how many answers the file is written, so that few are lost if the process is killed."""

LONGEST = 300
"""How many characters of an answer are repeated in a message."""


class Unusable(Exception):
    """An answer, or none, that another attempt may mend."""


class Endpoint(StageWriter):
    r"""Asks a language model for the three stages of each prompt, ``POST url/chat/completions``, and keeps them in a file.

    What is in the file is not asked for again, so that a run is repeatable; it may be read and corrected by hand, and
    :class:`~rlr.data.staged.stages.StageFile` reads it, too. Failed connections, time-outs, the statuses 429 and 5xx and answers
    that are not as asked are tried again, attempt :math:`k + 1` :math:`2^k d` seconds after attempt :math:`k`.

    Args:
        url: Where the endpoint is, such as ``http://127.0.0.1:8000/v1``.
        model: The name of the model there.
        cache: The ``.jsonl`` file; one model's answers only.
        key: The environment variable that holds the API key; it is not needed where the endpoint asks for none. The
            key itself is written nowhere.
        temperature: The sampling temperature.
        timeout: For how many seconds the endpoint may be silent.
        retries: How many further attempts to make.
        delay: The first delay :math:`d`, in seconds.
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
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"an endpoint's address begins with http:// or https://, and {url!r} does not")
        if timeout <= 0 or min(retries, delay, temperature) < 0:
            raise ValueError(
                "Endpoint needs timeout > 0 and retries, delay and temperature >= 0, and got "
                f"{timeout}, {retries}, {delay} and {temperature}"
            )
        self.url, self.model, self.cache, self.key = url.rstrip("/"), model, Path(cache), key
        self.temperature, self.timeout, self.retries, self.delay = temperature, timeout, retries, delay

    def write(self, prompts: Sequence[str]) -> list[tuple[str, ...]]:
        """Returns the stages of each prompt, from the file or from the model.

        Raises:
            ConnectionError: If the endpoint gave no usable answer in the last attempt, too; what came before is kept.
            ValueError: If it refuses, or another model wrote the file.
        """
        known = self._known()
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        for at in range(0, len(missing), KEPT):
            self._add(known, missing[at : at + KEPT])
        return [known[prompt].stages for prompt in prompts]

    def _known(self) -> dict[str, Written]:
        known = read_stages(self.cache) if self.cache.exists() else {}
        for prompt, written in known.items():
            # lines without a writer are somebody's own
            if written.writer not in (None, self.model):
                raise ValueError(
                    f"the stages of the prompt {prompt!r} in {self.cache} are {written.writer}'s, and {self.model} is to be "
                    "asked; name another file as cache"
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
        for attempt in range(self.retries + 1):
            try:
                return stages_of(self._answer(prompt))
            except Unusable as fault:
                reason = fault
            if attempt < self.retries:
                sleep(self.delay * 2**attempt)
        raise ConnectionError(
            f"the endpoint {self.url} gave no stages of the prompt {prompt!r} in {self.retries + 1} attempts, at last: "
            f"{reason}; check the model there, raise timeout or retries, or write a line of {self.cache} yourself"
        )

    def _answer(self, prompt: str) -> bytes:
        try:
            with urlopen(self._request(prompt), timeout=self.timeout) as answer:
                return answer.read()
        except HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, HTTPException) as error:
            raise Unusable(str(getattr(error, "reason", error)) or type(error).__name__) from error

    def _request(self, prompt: str) -> Request:
        messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": prompt}]
        body = json.dumps({"model": self.model, "messages": messages, "temperature": self.temperature})
        request = Request(f"{self.url}/chat/completions", body.encode(), {"Content-Type": "application/json"})
        if key := os.environ.get(self.key):
            # not sent on to where the endpoint may redirect
            request.add_unredirected_header("Authorization", f"Bearer {key}")
        return request

    def _refusal(self, error: HTTPError) -> Exception:
        with error:
            said = f"status {error.code}, {error.reason}"
        if error.code == 429 or error.code >= 500:
            return Unusable(said)
        hint = f"set the environment variable {self.key}" if error.code in (401, 403) else "check url and model"
        return ValueError(f"the endpoint {self.url} refuses with {said}; {hint}")


def stages_of(answer: bytes) -> tuple[str, ...]:
    """Returns the three texts in a completion, whatever stands around their JSON object.

    Raises:
        Unusable: If they are not there.
    """
    try:
        content: Any = json.loads(answer)["choices"][0]["message"]["content"]
        found = json.loads(content[content.index("{") : content.rindex("}") + 1])
        stages = tuple(" ".join(found[name].split()) for name in NAMES)
    except (ValueError, LookupError, TypeError, AttributeError):
        stages = ()
    if not stages or not all(stages):
        said = " ".join(answer.decode(errors="replace").split())[:LONGEST]
        raise Unusable(f"the answer holds no {', '.join(NAMES)}: {said}")
    return stages
