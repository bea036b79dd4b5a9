"""Prompts to VideoCrafter's embeddings: open_clip's tokens, padded by 0, through its text tower."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rlr.models.placement import TextPlacement
from rlr.models.text import SequencePrompts
from rlr.models.videocrafter.architecture import TextConfig


class OpenCLIPPrompts(SequencePrompts):
    """Prompts through open_clip's tokenizer and VideoCrafter's text tower.

    Args:
        load: Returns the text tower.
        config: Its sizes.
        identity: See :class:`~rlr.models.text.PromptEncoder`.
        merges: A file of merges for the tokenizer, in the format of CLIP's ``bpe_simple_vocab_16e6.txt.gz``; by default
            CLIP's own.
        placement: See :class:`~rlr.models.text.PromptEncoder`.

    Raises:
        ValueError: If the tokenizer makes tokens that the tower does not have.
    """

    def __init__(
        self,
        load: Callable[[], nn.Module],
        config: TextConfig,
        identity: str,
        merges: Path | None = None,
        placement: TextPlacement | None = None,
    ) -> None:
        # here, for it takes seconds to import
        from open_clip import SimpleTokenizer

        super().__init__(load, config.length, identity, placement)
        self.tokenizer = SimpleTokenizer(*([str(merges)] if merges else []), context_length=self.length)
        words, known = self.tokenizer.vocab_size, config.vocabulary
        if words > known:
            raise ValueError(
                f"the tokenizer has {words} tokens and the text tower embeddings of {known}; put the file of merges that "
                "these weights were trained with beside them"
            )

    def count(self, prompt: str) -> int:
        return len(self.tokenizer.encode(prompt)) + 2

    def tokens(self, prompt: str) -> Tensor:
        return self.tokenizer(prompt)

    def states(self, encoder: Any, tokens: Tensor) -> Tensor:
        return encoder(tokens)
