"""Held-out prompts of the board and of its tuning: no two are the same, and the demo uses other ones."""

from abc import abstractmethod
from functools import cache
from typing import Any

from rlr.data.prompts import PromptData
from rlr.toy.world.caption import parse
from rlr.toy.world.prompts import held_out_prompts

DEMO_DRAWS, DEMO_SEED = 960, 0
"""The demo evaluates on captions among these draws."""
DRAWS, SEED = 1000, 1000
"""The draws of which the board and its tuning take their captions."""


@cache
def other_captions() -> list[str]:
    """Returns different held-out captions without those of the demo; every third names a pair that training never shows."""
    demo = set(held_out_prompts(DEMO_DRAWS, DEMO_SEED))
    found = [caption for caption in dict.fromkeys(held_out_prompts(DRAWS, SEED)) if caption not in demo]
    novel = [caption for caption in found if parse(caption).novel]
    others = [caption for caption in found if not parse(caption).novel]
    return [caption for three in zip(novel, others[::2], others[1::2], strict=False) for caption in three]


class HeldOutCaptions(PromptData):
    """A part of the held-out captions of the built-in world that the demo does not use.

    Args:
        number: The number of captions.
        **loader: The arguments of :class:`~rlr.data.prompts.PromptData`.

    Raises:
        ValueError: If the part has fewer captions.
    """

    def __init__(self, number: int, **loader: Any) -> None:
        super().__init__(**loader)
        found = self.part(other_captions())
        if not 1 <= number <= len(found):
            raise ValueError(f"{type(self).__name__}.number: expected 1 to {len(found)}, got {number}")
        self.captions = found[:number]

    @abstractmethod
    def part(self, captions: list[str]) -> list[str]:
        """Returns the captions of this part; parts of different classes have no caption in common."""

    def prompts(self, split: str) -> list[str]:
        return [] if split == "train" else self.captions


class BoardPrompts(HeldOutCaptions):
    """The captions on which the board evaluates."""

    def part(self, captions: list[str]) -> list[str]:
        return captions[::2]


class TuningPrompts(HeldOutCaptions):
    """The captions on which learning rates are selected."""

    def part(self, captions: list[str]) -> list[str]:
        return captions[1::2]
