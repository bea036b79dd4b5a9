"""Stages of the built-in world's captions."""

from collections.abc import Sequence
from dataclasses import replace

from rlr.data.cleaning import PromptFilter
from rlr.data.staged.stages import StageWriter
from rlr.toy.world.caption import parse


class WorldStages(StageWriter):
    """Captions of the built-in world: the layout first, then the shapes, then the texture.

    Of "a red circle left of a blue square on a white striped background" the layout is "a red circle left of a blue square
    on a white background", the shapes are "a red circle and a blue square on a white background", and the last stage is
    the whole.
    """

    def write(self, prompts: Sequence[str]) -> list[tuple[str, ...]]:
        return [self._stages(prompt) for prompt in prompts]

    def _stages(self, prompt: str) -> tuple[str, ...]:
        layout = replace(parse(prompt), texture=None)
        shapes = replace(layout, position=None, relation=None)
        return layout.caption, shapes.caption, prompt


class Layered(PromptFilter):
    """Keeps the captions of the built-in world whose three stages by :class:`WorldStages` differ.

    These captions name places and a texture: about a fifth of those of training, and a tenth of those held out.
    """

    def __init__(self) -> None:
        self.writer = WorldStages()

    def __call__(self, prompt: str) -> bool:
        (stages,) = self.writer.write([prompt])
        return len(set(stages)) == len(stages)
