"""Samples before and after, with what was measured on them."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from rlr.evaluation.pictures import Card, png
from rlr.toy.demo.evaluate import Evaluation
from rlr.toy.demo.media import Media, Picture
from rlr.toy.demo.world import World

FIRST = 12
"""How many prompts are shown at first sight; the samples of the others stand still."""


@dataclass(frozen=True)
class Pair:
    r"""One prompt before and after on the same noise.

    Args:
        prompt: The prompt.
        stills: An image of each of the two samples, base first.
        media: The samples as the page shows them.
        rewards: Their rewards.
        correct: Whether the exact check found nothing wrong.
    """

    prompt: str
    stills: tuple[Image.Image, Image.Image]
    media: tuple[Media, Media]
    rewards: tuple[float, float]
    correct: tuple[bool, bool]


def pairs(world: World, base: Evaluation, aligned: Evaluation, sample: int = 0) -> list[Pair]:
    """Returns the given sample of every prompt, before and after."""
    return [_pair(world, (base, aligned), i, sample) for i in range(len(base.prompts))]


def _pair(world: World, both: tuple[Evaluation, Evaluation], i: int, sample: int) -> Pair:
    pixels = [e.pixels[i, sample] for e in both]
    stills = [world.still(x) for x in pixels]
    media = [world.media(x) for x in pixels] if i < FIRST else [Picture(png(image)) for image in stills]
    rewards = [e.scores["reward"][i, sample].item() for e in both]
    correct = [bool(e.scores["all"][i, sample] > 0) for e in both]
    return Pair(both[0].prompts[i], tuple(stills), tuple(media), tuple(rewards), tuple(correct))  # type: ignore[arg-type]


def cards(shown: Sequence[Pair]) -> list[Card]:
    """Returns the pairs as they are drawn, marked by the exact check."""
    return [Card(pair.prompt, pair.stills, ("base", "aligned"), pair.correct) for pair in shown]
