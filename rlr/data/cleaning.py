"""Prompts with their places in files, and which of them are dropped."""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_info

from rlr.data.files import numbered_lines, read_text
from rlr.io.text import quote

ASSETS = Path(__file__).parent / "assets"


class Entry(NamedTuple):
    """A prompt and its place.

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
    """Decides which prompts are kept."""

    @abstractmethod
    def __call__(self, prompt: str) -> bool:
        """Whether to keep ``prompt``."""


class WithoutWords(PromptFilter):
    """Keeps the prompts that contain none of some words; a word is matched whole and in any case.

    A list of words misses some prompts that it should drop, and drops some that are harmless.

    Args:
        words: The words, or phrases; by default those of nudity, sex and gore in ``assets/unsafe_words.txt``.

    Raises:
        ValueError: If there are no words, or a blank one.
    """

    def __init__(self, words: list[str] | None = None) -> None:
        if words is None:
            words = [line for _, line in numbered_lines(read_text(ASSETS / "unsafe_words.txt"))]
        if not all(word.strip() for word in words) or not words:
            raise ValueError("WithoutWords needs words, none of them blank; leave out the filter to keep everything")
        choices = "|".join(re.escape(word.strip()) for word in words)
        # an underscore separates words, too
        self.pattern = re.compile(rf"(?<![^\W_])(?:{choices})(?![^\W_])", re.IGNORECASE)

    def __call__(self, prompt: str) -> bool:
        return self.pattern.search(prompt) is None


def trim(prompt: str) -> str:
    """Returns a prompt without the blanks and byte-order marks around it; joined files have such marks inside."""
    while prompt != (shorter := prompt.strip().strip("\ufeff")):
        prompt = shorter
    return prompt


def fold(prompt: str) -> str:
    """Returns what text encoders read of a prompt: letters without case and compatibility forms, single blanks.

    Two prompts of one fold are the same to the tokenizer of CLIP (case, blanks, NFC) or of T5 (blanks, NFKC).
    """
    return " ".join(unicodedata.normalize("NFKC", prompt).lower().split())


def clean(entries: Iterable[Entry]) -> list[Entry]:
    """Trims prompts, and drops empty ones and repetitions of earlier ones."""
    found: dict[str, Entry] = {}
    for entry in entries:
        prompt = trim(entry.prompt)
        if prompt:
            found.setdefault(prompt, entry._replace(prompt=prompt))
    return list(found.values())


def drop_shared(entries: list[Entry], others: Sequence[Entry]) -> list[Entry]:
    """Drops the prompts that ``others`` contain, too, and logs how many: for published files, which nobody corrects.

    Prompts are compared by :func:`fold`.
    """
    shared = {fold(other.prompt) for other in others}
    kept = [entry for entry in entries if fold(entry.prompt) not in shared]
    if len(kept) < len(entries):
        rank_zero_info(
            f"Dropped {len(entries) - len(kept)} of {len(entries)} prompts of {entries[0].path.parent} that are held out "
            "in another split."
        )
    return kept


def check_disjoint(entries: Iterable[Entry], others: Iterable[Entry]) -> None:
    """Compares two splits by :func:`fold`: for files that their user can correct.

    Raises:
        ValueError: If a prompt is in both.
    """
    first = {fold(entry.prompt): entry for entry in entries}
    for other in others:
        if one := first.get(fold(other.prompt)):
            texts = (
                quote(one.prompt) if one.prompt == other.prompt else f"{quote(other.prompt)} and {quote(one.prompt)}"
            )
            raise ValueError(
                f"{other.place} repeats {one.place} ({texts}), and no prompt may be in two splits; delete one of them"
            )


def texts(entries: Iterable[Entry]) -> list[str]:
    """The prompts without their places."""
    return [entry.prompt for entry in entries]
