"""The toy of the training step, for prompts that it does not know."""

from collections.abc import Sequence

from rlr.models.base import Condition
from tests.modules.toy import WORDS, AffineModel


class AnyPrompt(AffineModel):
    """Takes a prompt for the number of its letters, modulo 8."""

    def encode(self, prompts: Sequence[str]) -> Condition:
        return super().encode([WORDS[len(prompt) % 8] for prompt in prompts])
