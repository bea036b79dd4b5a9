"""What a demo is about: the pictures of the built-in world, or its clips."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image
from torch import Tensor

from rlr.evaluation.pictures import Card, grid, png
from rlr.toy.demo.media import Media, Picture


@dataclass(frozen=True)
class Words:
    """What is said of a world in the results.

    Args:
        title: The heading of the page.
        check: What the exact check is, in apposition.
        sheet: What to know when looking at the sheet.
        reading: How the table is to be read.
        method: What was done, with ``{updates}`` and ``{method}``.
        limits: What this does not show.
    """

    title: str
    check: str
    sheet: str
    reading: str
    method: str
    limits: str


class World(ABC):
    """Prompts that a program can check, the check, and how samples are shown."""

    labels: ClassVar[Mapping[str, str]]
    """What every measurement is called, in the order of the table; parts of another one begin with …"""
    tiles: ClassVar[Sequence[str]]
    """The measurements at the top of the page."""
    words: ClassVar[Words]
    layout: ClassVar[str] = "cards"
    """The classes of style of a list of stills on the page."""

    @abstractmethod
    def captions(self, number: int, seed: int) -> list[str]:
        """Returns held-out captions, among which one may come twice."""

    def prompts(self, number: int, seed: int) -> list[str]:
        """Returns different held-out captions."""
        # four times as many leave enough different ones
        return list(dict.fromkeys(self.captions(4 * number, seed)))[:number]

    @abstractmethod
    def check(self, pixels: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        r"""Returns what the exact check says of samples, by name.

        Args:
            pixels: Samples in [0, 1], with shape :math:`(B, *)`.
            prompts: The caption of each.

        Returns:
            Tensors with shape :math:`(B)`, of 1 (true), 0 (false) or NaN (not claimed).
        """

    @abstractmethod
    def still(self, pixels: Tensor) -> Image.Image:
        """Returns the image that stands for a sample."""

    def media(self, pixels: Tensor) -> Media:
        """Returns a sample as a page shows it."""
        return Picture(png(self.still(pixels)))

    def sheet(self, cards: Sequence[Card], title: str) -> Image.Image:
        """Draws the stills of samples side by side."""
        return grid(cards, title, self.words.sheet)

    def files(self, media: Sequence[Sequence[Media]]) -> dict[str, bytes]:
        """Returns the files that a page is accompanied by: none, unless the samples of each prompt are worth one."""
        return {}
