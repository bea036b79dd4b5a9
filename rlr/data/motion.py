"""Prompts for videos, written for this project: people doing sports, animals in clothes, animals with instruments."""

from typing import Any

from rlr.data.cleaning import ASSETS
from rlr.data.files import csv_rows, read_text
from rlr.data.prompts import PromptData

CATEGORIES = ("sports", "clothes", "instruments")
"""People doing sports, animals wearing clothes, animals playing instruments."""


class MotionPrompts(PromptData):
    r"""Trains on 36 prompts of each category, and evaluates on 18 others.

    A prompt is about a subject (a person or an animal) and an object (a sport, a garment or an instrument). Of the
    held-out prompts of a category, 6 pair a subject and an object that training shows apart, 6 have a new subject, and
    6 a new object. Validation, test and prediction are the same. ``category_of`` maps each prompt to its category.

    Args:
        categories: The categories, by default all three: ``sports``, ``clothes`` and ``instruments``.
        **loader: The arguments of :class:`~rlr.data.prompts.PromptData`.
    """

    def __init__(self, categories: tuple[str, ...] = CATEGORIES, **loader: Any) -> None:
        super().__init__(**loader)
        for category in categories:
            if category not in CATEGORIES:
                raise ValueError(f"MotionPrompts has no category {category!r}; there are {', '.join(CATEGORIES)}")
        self.rows = [row for row in rows() if row["category"] in categories]
        self.category_of = {row["prompt"]: row["category"] for row in self.rows}

    def prompts(self, split: str) -> list[str]:
        return [row["prompt"] for row in self.rows if (row["split"] == "train") == (split == "train")]

    def remedy(self, split: str) -> str:
        return "set data.init_args.categories"


def rows() -> list[dict[str, str]]:
    """Returns ``category``, ``split`` (``train`` or ``held_out``), ``subject``, ``thing`` and ``prompt`` of each prompt."""
    path = ASSETS / "motion.csv"
    return [row for _, row in csv_rows(read_text(path), path, "prompt")]
