"""Tables as text, and pages of HTML that need no other file."""

import base64
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import ClassVar

import jinja2

from rlr.evaluation.plots import Plots
from rlr.evaluation.statistics import Comparison, Estimate
from rlr.io.csv_file import to_csv
from rlr.io.terminal import TERMINAL
from rlr.io.text import escaped

COMPARED = ("base", "aligned", "difference", "95 % interval")
"""The columns of a comparison, after the name of what is compared."""
ALONE = ("score", "95 % interval")
"""The columns of a model without a base, after the name of what is measured."""
MISSING = "–"

Show = Callable[[float, bool], str]
"""Writes a number, with its sign where that is asked for."""


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Args:
        title: What it shows.
        head: The names of the columns.
        rows: The rows, each with as many texts as the head.
        note: What a reader has to know.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    kind: ClassVar[str] = "table"

    def markdown(self) -> str:
        """Returns head and rows in Markdown whose source is aligned, too."""
        lines = [[escaped(cell) for cell in line] for line in (self.head, *self.rows)]
        widths = _widths(lines)
        head, *body = [f"| {' | '.join(_padded(line, widths))} |" for line in lines]
        rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
        return "\n".join([head, f"|{rule}|", *body])

    def text(self) -> str:
        """Returns head and rows as aligned columns, the first to the left and the others to the right."""
        lines = [list(line) for line in (self.head, *self.rows)]
        return "\n".join("  ".join(_padded(line, _widths(lines))).rstrip() for line in lines)

    def csv(self) -> bytes:
        """Returns head and rows as the content of a CSV file."""
        return to_csv(self.head, self.rows)


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    # a rule of Markdown has at least three signs
    return [max(3, *(len(line[k]) for line in lines)) for k in range(len(lines[0]))]


def _padded(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    rest = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
    return [line[0].ljust(widths[0]), *rest]


def cells(value: Comparison | Estimate, show: Show | None = None) -> tuple[str, ...]:
    """Returns base, aligned, difference and interval, or without a base score and interval.

    Args:
        value: The comparison or estimate.
        show: Writes a number; by default with four digits.
    """
    compared = isinstance(value, Comparison)
    show = show or digits(*((value.base, value.aligned) if isinstance(value, Comparison) else (value.mean,)))
    low, high = (show(bound, compared) for bound in (value.low, value.high))
    interval = MISSING if MISSING in (low, high) else f"{low} … {high}"
    if isinstance(value, Comparison):
        return show(value.base, False), show(value.aligned, False), show(value.difference, True), interval
    return show(value.mean, False), interval


def digits(*numbers: float) -> Show:
    """Returns a function that writes numbers with the decimals that give the largest of these four digits."""
    largest = max(abs(number) for number in numbers)
    decimals = min(5, max(1, 3 - math.floor(math.log10(largest)))) if 0 < largest < math.inf else 3
    return lambda number, signed: written(number, decimals, signed)


def written(number: float, decimals: int, signed: bool = False) -> str:
    """Returns a number as text, with a minus that is one, and a dash for NaN."""
    return MISSING if math.isnan(number) else f"{number:{'+' if signed else ''}.{decimals}f}".replace("-", "−")


def say(text: str) -> None:
    """Writes a text to stdout; characters that it cannot encode become question marks, and a closed stdout is left alone."""
    TERMINAL.clear()
    try:
        try:
            sys.stdout.write(f"{text}\n")
        except UnicodeEncodeError:
            encoding = sys.stdout.encoding or "ascii"
            sys.stdout.write(f"{text}\n".encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        # nobody reads it any more, and what follows must not fail for that
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


# ---------------------------------------------------------------- pages


@dataclass(frozen=True)
class Media:
    """An image or a video inside a page.

    Args:
        content: The content of the file.
        text: The text for readers who do not see it.
        type: The media type.
        enlarged: Whether it has so few pixels that each is shown as a square.
    """

    content: bytes
    text: str = ""
    type: str = "image/png"
    enlarged: bool = False

    @property
    def inline(self) -> str:
        """The content as an address that needs no other file."""
        return f"data:{self.type};base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True)
class Text:
    """Paragraphs, or with ``code`` a command; with a ``summary``, what is in ``code`` is folded under it."""

    title: str
    paragraphs: Sequence[str] = ()
    code: str = ""
    summary: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Chart:
    """A drawing, with another one for dark screens where there is one."""

    title: str
    image: Media
    dark: Media | None = None
    note: str = ""
    kind: ClassVar[str] = "chart"


@dataclass(frozen=True)
class Tiles:
    """Comparisons in large type: name, before, after, and the difference in words."""

    tiles: Sequence[tuple[str, str, str, str]]
    note: str = ""
    kind: ClassVar[str] = "tiles"


@dataclass(frozen=True)
class Sample:
    """A sample with its name and score, and whether it is right, where that is known."""

    media: Media
    name: str
    score: str
    right: bool | None = None


@dataclass(frozen=True)
class Samples:
    """Samples side by side under their prompts.

    Args:
        title: What is shown.
        prompts: Each prompt with its samples.
        note: What a reader has to know.
        summary: With one, the samples are folded under it.
        wide: Whether samples are wider than high.
    """

    title: str
    prompts: Sequence[tuple[str, Sequence[Sample]]]
    note: str = ""
    summary: str = ""
    wide: bool = False
    kind: ClassVar[str] = "samples"


@dataclass(frozen=True)
class Card:
    """Samples of one prompt, and the numbers by which a gallery sorts it.

    Args:
        prompt: The prompt.
        samples: The samples.
        values: A number for each key of the gallery; None where there is no such number.
    """

    prompt: str
    samples: Sequence[Sample]
    values: Sequence[float | None] = ()


@dataclass(frozen=True)
class Gallery:
    """Samples under their prompts, which a reader sorts and filters.

    Args:
        title: What is shown.
        cards: The prompts.
        keys: What to sort by, such as ``change of PickScore``; a change also filters, by its sign.
        note: What a reader has to know.
    """

    title: str
    cards: Sequence[Card]
    keys: Sequence[str] = ()
    note: str = ""
    kind: ClassVar[str] = "gallery"

    @property
    def columns(self) -> int:
        """The most samples of a prompt."""
        return max((len(card.samples) for card in self.cards), default=1)


@dataclass(frozen=True)
class Facts:
    """Names and texts."""

    title: str
    facts: Mapping[str, str]
    kind: ClassVar[str] = "facts"


Block = Table | Text | Chart | Plots | Tiles | Samples | Gallery | Facts


def page(title: str, lead: str, blocks: Sequence[Block]) -> str:
    """Returns a page of HTML that holds all its images and asks for no other file."""
    return _template().render(title=title, lead=lead, blocks=blocks)


@cache
def _template() -> jinja2.Template:
    source = files("rlr.evaluation").joinpath("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(source)
