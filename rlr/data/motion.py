"""Prompts for videos, written for this project: people doing sports, animals in clothes, animals with instruments."""

import csv

from rlr.data.cleaning import ASSETS
from rlr.data.prompts import PromptData

CATEGORIES = ("sports", "clothes", "instruments")
"""People doing sports, animals wearing clothes, animals playing instruments."""


class MotionPrompts(PromptData):
    r"""Trains on 36 prompts of each category, and evaluates on 18 others.

    A prompt is about a subject (a person or an animal) and a thing (a sport, a garment or an instrument). Of the held-out
    prompts of a category, 6 pair a subject and a thing that training shows apart, 6 have a subject that is new, and 6 a
    thing that is new. Validation, test and prediction are the same. ``category_of`` says the category of each prompt.

    Args:
        categories: The categories, by default all three: ``sports``, ``clothes`` and ``instruments``.
        batch_size: The samples :math:`B` a process takes for a batch.
        samples_per_prompt: The samples :math:`k` of one prompt, side by side in a training batch.
        evaluation_samples: The samples of each prompt in validation, test and prediction.
        seed: Decides the order of each training pass.
        shuffle: Whether to read training prompts in random order.
    """

    def __init__(
        self,
        categories: tuple[str, ...] = CATEGORIES,
        batch_size: int = 4,
        samples_per_prompt: int = 1,
        evaluation_samples: int = 1,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        super().__init__(batch_size, samples_per_prompt, evaluation_samples, seed, shuffle)
        for category in categories:
            if category not in CATEGORIES:
                raise ValueError(f"MotionPrompts has no category {category!r}; there are {', '.join(CATEGORIES)}")
        chosen = [row for row in rows() if row["category"] in categories]
        self.category_of = {row["prompt"]: row["category"] for row in chosen}
        self.training = [row["prompt"] for row in chosen if row["split"] == "train"]
        self.evaluation = [row["prompt"] for row in chosen if row["split"] == "held_out"]

    def prompts(self, split: str) -> list[str]:
        return self.training if split == "train" else self.evaluation

    def remedy(self, split: str) -> str:
        return "set data.init_args.categories"


def rows() -> list[dict[str, str]]:
    """Returns ``category``, ``split`` (``train`` or ``held_out``), ``subject``, ``thing`` and ``prompt`` of each prompt."""
    with (ASSETS / "motion.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
