"""Prompts with the places where they were found, and what is dropped from them."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_info

ASSETS = Path(__file__).parent / "assets"


class Entry(NamedTuple):
    """A prompt and where it stands.

    Args:
        prompt: The text.
        path: The file.
        number: The line, row or item, counted from 1.
        unit: What is counted.
    """

    prompt: str
    path: Path
    number: int
    unit: str = "line"

    @property
    def place(self) -> str:
        """The place in words."""
        return f"{self.unit} {self.number} of {self.path}"


class PromptFilter(ABC):
    """Says which prompts are kept."""

    @abstractmethod
    def __call__(self, prompt: str) -> bool:
        """Whether to keep ``prompt``."""


class WithoutWords(PromptFilter):
    """Keeps the prompts that hold none of some words; a word is matched whole and in any case.

    A list of words is no judge: it lets some prompts pass that should not, and stops some that are harmless.

    Args:
        words: The words, or phrases; by default those of nudity, sex and gore in ``assets/unsafe_words.txt``.
    """

    def __init__(self, words: list[str] | None = None) -> None:
        if words is None:
            words = (ASSETS / "unsafe_words.txt").read_text(encoding="utf-8").splitlines()
        if not all(word.strip() for word in words) or not words:
            raise ValueError("WithoutWords needs words, none of them blank; leave out the filter to keep everything")
        choices = "|".join(re.escape(word.strip()) for word in words)
        # an underscore parts words, too
        self.pattern = re.compile(rf"(?<![^\W_])(?:{choices})(?![^\W_])", re.IGNORECASE)

    def __call__(self, prompt: str) -> bool:
        return self.pattern.search(prompt) is None


def clean(entries: Iterable[Entry], keep: PromptFilter | None = None) -> list[Entry]:
    """Takes off the blanks around prompts; drops empty prompts, repetitions of earlier ones, and what ``keep`` does.

    Raises:
        ValueError: If ``keep`` leaves none.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        prompt = entry.prompt.strip()
        if prompt and prompt not in found:
            found[prompt] = entry._replace(prompt=prompt)
    return chosen(list(found.values()), keep)


def chosen(entries: list[Entry], keep: PromptFilter | None) -> list[Entry]:
    """Asks ``keep`` about each prompt, if there is such a filter.

    Raises:
        ValueError: If it leaves none.
    """
    kept = [entry for entry in entries if keep is None or keep(entry.prompt)]
    if entries and not kept:
        raise ValueError(
            f"{type(keep).__name__} keeps none of the {len(entries)} prompts of {entries[0].path}; "
            "give a filter that is less strict"
        )
    return kept


def drop_shared(entries: list[Entry], others: Sequence[Entry]) -> list[Entry]:
    """Drops the prompts that ``others`` have too, and logs their number: for published files, which are as they are."""
    shared = {other.prompt for other in others}
    kept = [entry for entry in entries if entry.prompt not in shared]
    if len(kept) < len(entries):
        rank_zero_info(
            f"Dropped {len(entries) - len(kept)} of {len(entries)} prompts of {entries[0].path.parent} that are held out "
            "in another split."
        )
    return kept


def check_disjoint(entries: Iterable[Entry], others: Iterable[Entry]) -> None:
    """Compares two splits: for files that their user can correct.

    Raises:
        ValueError: If a prompt is in both.
    """
    first = {entry.prompt: entry for entry in entries}
    for other in others:
        if other.prompt in first:
            raise ValueError(
                f"{other.place} repeats {first[other.prompt].place} ({other.prompt[:60]!r}), and no prompt may be in "
                "two splits; delete one of them"
            )


def texts(entries: Iterable[Entry]) -> list[str]:
    """The prompts without their places."""
    return [entry.prompt for entry in entries]
