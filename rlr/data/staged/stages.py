r"""Sources of the stages of prompts: a file or a template."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlr.data.cleaning import ASSETS, trim
from rlr.data.files import json_lines, prompt_of, read_text
from rlr.io.text import check_text, quote

PLACE = "{prompt}"
"""Where a template puts the prompt."""


class StageWriter(ABC):
    r"""Rewrites whole prompts in :math:`S` stages, from coarse to fine."""

    @abstractmethod
    def write(self, prompts: Sequence[str]) -> list[tuple[str, ...]]:
        """Returns the stages of each prompt."""


class Templates(StageWriter):
    """The prompt with words of its scale around it.

    Args:
        stages: A text for each stage, in which ``{prompt}`` stands for the prompt; by default three, of composition, of
            the form of parts, and of surfaces.

    Raises:
        ValueError: If there are no stages, or one without ``{prompt}``.
    """

    def __init__(
        self,
        stages: Sequence[str] = (
            "{prompt}, simple composition, clear silhouette against the background",
            "{prompt}, well-formed, every part in its place and in proportion",
            "{prompt}, sharp focus, fine detail, natural textures and light",
        ),
    ) -> None:
        if not stages or not all(PLACE in stage for stage in stages):
            raise ValueError(f"Templates.stages: expected texts that hold {PLACE}, found {list(stages)}")
        self.stages = tuple(stages)

    def write(self, prompts: Sequence[str]) -> list[tuple[str, ...]]:
        return [tuple(stage.replace(PLACE, prompt) for stage in self.stages) for prompt in prompts]


class StageFile(StageWriter):
    """Stages from a ``.jsonl`` file of objects with ``prompt`` and ``stages``, a list of texts.

    Args:
        path: The file; by default that of the five prompts of :class:`~rlr.data.staged.dcot.HandPrompts`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is no such object.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = ASSETS / "hands.jsonl" if path is None else Path(path).expanduser()
        self.stages = {prompt: written.stages for prompt, written in read_stages(self.path).items()}

    def write(self, prompts: Sequence[str]) -> list[tuple[str, ...]]:
        for prompt in prompts:
            if trim(prompt) not in self.stages:
                raise ValueError(f"{self.path} has no stages of the prompt {quote(prompt)}; add a line with its stages")
        return [self.stages[trim(prompt)] for prompt in prompts]


class Written(NamedTuple):
    """The stages of a prompt, and which model wrote them, if known."""

    stages: tuple[str, ...]
    writer: str | None = None


def read_stages(path: Path) -> dict[str, Written]:
    """Returns the stages in a file, by trimmed prompt; of several lines with one prompt the last one counts."""
    return dict(_read(value, f"line {number} of {path}") for number, value in json_lines(read_text(path), path))


def format_stages(written: Mapping[str, Written]) -> str:
    """Returns the text that :func:`read_stages` reads."""
    lines = ({"prompt": prompt, "stages": list(w.stages), "writer": w.writer} for prompt, w in written.items())
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _read(value: Any, place: str) -> tuple[str, Written]:
    prompt = trim(prompt_of(value, place, "prompt"))
    stages = value.get("stages") if isinstance(value, dict) else None
    if not isinstance(stages, list) or not stages or not all(isinstance(s, str) and s.strip() for s in stages):
        raise ValueError(
            f'{place} has no list of texts under "stages"; write the prompts of the stages, coarse to fine'
        )
    return prompt, Written(tuple(check_text(stage, place) for stage in stages), value.get("writer"))
