"""Prompts in the config itself."""

from typing import Any

from rlr.data.prompts import PromptData


class Prompts(PromptData):
    r"""Prompts listed in the config, as they are: a prompt may be repeated, and may be in several splits.

    Args:
        train: Training prompts.
        val: Validation prompts.
        test: Test prompts, by default those of validation.
        predict: Prompts to predict, by default those of the test.
        **loader: The arguments of :class:`~rlr.data.prompts.PromptData`.
    """

    def __init__(
        self,
        train: list[str] | None = None,
        val: list[str] | None = None,
        test: list[str] | None = None,
        predict: list[str] | None = None,
        **loader: Any,
    ) -> None:
        super().__init__(**loader)
        test = val if test is None else test
        self.lists = {"train": train, "val": val, "test": test, "predict": test if predict is None else predict}

    def prompts(self, split: str) -> list[str]:
        return self.lists[split] or []
