r"""Who writes the stages of prompts: a file or a template."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rlr.data.cleaning import ASSETS
from rlr.data.files import prompt_of, read_text

PLACE = "{prompt}"
"""What a template says for the prompt."""


class StageWriter(ABC):
    r"""Tells whole prompts in :math:`S` stages, from coarse to fine."""

    @abstractmethod
    def write(self, prompts: Sequence[str]) -> list[tuple[str, ...]]:
        """Returns the stages of each prompt."""


class Templates(StageWriter):
    """The prompt with words of its scale around it.

    Args:
        stages: A text for each stage, in which ``{prompt}`` stands for the prompt; by default three, of composition, of
            the form of parts, and of surfaces.
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
            raise ValueError(f"Templates' stages are texts that hold {PLACE}, and {list(stages)} were given")
        self.stages = tuple(stages)

    def write(self, prompts: Sequence[str]) -> list[tuple[str, ...]]:
        return [tuple(stage.replace(PLACE, prompt) for stage in self.stages) for prompt in prompts]


class StageFile(StageWriter):
    """Stages that somebody wrote, in a ``.jsonl`` file of objects with ``prompt`` and ``stages``, a list of texts.

    Args:
        path: The file; by default that of the five prompts of :class:`~rlr.data.staged.dcot.HandPrompts`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is no such object.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = ASSETS / "hands.jsonl" if path is None else Path(path)
        self.stages = {prompt: written.stages for prompt, written in read_stages(self.path).items()}

    def write(self, prompts: Sequence[str]) -> list[tuple[str, ...]]:
        for prompt in prompts:
            if prompt not in self.stages:
                raise ValueError(f"{self.path} has no stages of the prompt {prompt!r}; add a line with its stages")
        return [self.stages[prompt] for prompt in prompts]


class Written(NamedTuple):
    """The stages of a prompt, and who wrote them, if that is known."""

    stages: tuple[str, ...]
    writer: str | None = None


def read_stages(path: Path) -> dict[str, Written]:
    """Returns the stages in a file by prompt; of lines of one prompt the last one counts."""
    found = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            prompt, written = _read(line, f"line {number} of {path}")
            found[prompt] = written
    return found


def format_stages(written: Mapping[str, Written]) -> str:
    """Returns what :func:`read_stages` reads."""
    lines = ({"prompt": prompt, "stages": list(w.stages), "writer": w.writer} for prompt, w in written.items())
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _read(line: str, place: str) -> tuple[str, Written]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{place} is not JSON ({error.msg} at column {error.colno}); write one object a line"
        ) from error
    prompt = prompt_of(value, place, "prompt").strip()
    stages = value.get("stages") if isinstance(value, dict) else None
    if not isinstance(stages, list) or not stages or not all(isinstance(s, str) and s.strip() for s in stages):
        raise ValueError(
            f'{place} has no list of texts under "stages"; write the prompts of the stages, coarse to fine'
        )
    return prompt, Written(tuple(stages), value.get("writer"))
