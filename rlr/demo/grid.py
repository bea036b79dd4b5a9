"""Samples before and after, with what was measured on them."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from rlr.demo.evaluate import Evaluation
from rlr.evaluation.pictures import Card, picture


@dataclass(frozen=True)
class Pair:
    r"""One prompt before and after on the same noise.

    Args:
        prompt: The prompt.
        images: The two samples, base first.
        rewards: Their rewards.
        correct: Whether the exact check found nothing wrong.
    """

    prompt: str
    images: tuple[Image.Image, Image.Image]
    rewards: tuple[float, float]
    correct: tuple[bool, bool]


def pairs(base: Evaluation, aligned: Evaluation, sample: int = 0) -> list[Pair]:
    """Returns the given sample of every prompt, before and after."""
    both = (base, aligned)
    return [
        Pair(
            prompt,
            (picture(base.pixels[i, sample]), picture(aligned.pixels[i, sample])),
            (base.scores["reward"][i, sample].item(), aligned.scores["reward"][i, sample].item()),
            tuple(bool(e.scores["all"][i, sample] > 0) for e in both),  # type: ignore[arg-type]
        )
        for i, prompt in enumerate(base.prompts)
    ]


def cards(shown: Sequence[Pair]) -> list[Card]:
    """Returns the pairs as they are drawn, marked by the exact check."""
    return [Card(pair.prompt, pair.images, ("base", "aligned"), pair.correct) for pair in shown]
