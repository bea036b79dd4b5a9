"""What a demo shows: images of the built-in world, or its videos."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from rlr.evaluation.images import Card, grid, png
from rlr.evaluation.metrics import Metric
from rlr.evaluation.report import Media, written
from rlr.evaluation.samples import SampleBatch


@dataclass(frozen=True)
class Words:
    """The texts of a world.

    Args:
        title: The title of the page.
        check: What the exact check is, in apposition.
        sheet: The subtitle of the sheet.
        reading: How to read the table.
        method: What was done, with ``{base}``, ``{reward}``, ``{updates}`` and ``{method}``.
        limits: What this does not show.
        bases: What a base model is, by its class; any other is that of the config.
        rewards: What a reward is, by its label.
    """

    title: str
    check: str
    sheet: str
    reading: str
    method: str
    limits: str
    bases: Mapping[str, str] = field(default_factory=dict)
    rewards: Mapping[str, str] = field(default_factory=dict)

    def done(self, base: str, reward: str, updates: int, method: str) -> str:
        """Returns what was done, for the class of the base model, the label of the reward, and the estimator."""
        return self.method.format(
            base=self.bases.get(base, f"the {base} of the config, which was not made for the prompts shown here"),
            reward=self.rewards.get(reward, f"{reward} of the config"),
            updates=f"{updates} update{'s'[: updates != 1]}",
            method=method,
        )


class World(ABC):
    """Prompts that a program can check, the check, and the display of samples."""

    labels: ClassVar[Mapping[str, str]]
    """The name of every measurement, in the order of the table; parts of another one begin with …"""
    tiles: ClassVar[Sequence[str]]
    """The measurements at the top of the page."""
    words: ClassVar[Words]
    wide: ClassVar[bool] = False
    """Whether stills are wider than high."""

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

    def media(self, pixels: Tensor, text: str) -> Media:
        """Returns a sample as a page shows it, with a text for readers who do not see it."""
        return Media(png(self.still(pixels)), text, enlarged=True)

    def sheet(self, cards: Sequence[Card], title: str) -> Image.Image:
        """Draws the stills of samples side by side."""
        return grid(cards, title, self.words.sheet)

    def files(self, media: Sequence[Sequence[Media]]) -> dict[str, bytes]:
        """Returns further files for the samples of each prompt; none by default."""
        return {}


class Claims(Metric):
    """The share of samples in which the exact check finds every claim of the prompt true, and of each kind of claim.

    Args:
        world: The world of the prompts.
    """

    label = "all"

    def __init__(self, world: World) -> None:
        self.world = world
        self.claims: list[str] = []
        self._found = torch.empty(0)

    def measure(self, batch: SampleBatch) -> Tensor:
        found = self.world.check(batch.pixels.float().cpu(), batch.prompts)
        self.claims = list(found)
        return torch.stack([found[name].float() for name in self.claims], 1)

    def reduce(self, values: Tensor) -> Tensor:
        self._found = values
        return values[..., self.claims.index(self.label)]

    def parts(self) -> Mapping[str, Tensor]:
        return {name: self._found[..., k] for k, name in enumerate(self.claims) if name != self.label}


NUMBERS = ("reward", "diversity")
"""Measurements that are no shares, and so not shown in percent."""


def show(name: str, value: float, signed: bool = False) -> str:
    """Returns a measurement as text: shares in percent, a difference with its sign."""
    if name in NUMBERS:
        return written(value, 3, signed)
    return f"{written(100 * value, 1, signed)}{'' if signed else ' %'}"
