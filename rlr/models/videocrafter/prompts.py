"""Prompts to VideoCrafter's embeddings: open_clip's tokens, padded by 0, through its text tower."""

from pathlib import Path

from torch import Tensor

from rlr.models.text import PromptEncoder
from rlr.models.videocrafter.text import TextTower


class OpenCLIPPrompts(PromptEncoder):
    """Prompts through open_clip's tokenizer and VideoCrafter's text tower.

    Args:
        encoder: The text tower.
        merges: A file of merges for the tokenizer, in the format of CLIP's ``bpe_simple_vocab_16e6.txt.gz``; by default
            CLIP's own.
        capacity: How many embeddings are kept.

    Raises:
        ValueError: If the tokenizer makes tokens that the tower does not have.
    """

    def __init__(self, encoder: TextTower, merges: Path | None = None, capacity: int = 256) -> None:
        # here, for it takes seconds to import
        from open_clip import SimpleTokenizer

        super().__init__(encoder, len(encoder.positional_embedding), capacity)
        self.tokenizer = SimpleTokenizer(*([str(merges)] if merges else []), context_length=self.length)
        words, known = self.tokenizer.vocab_size, encoder.token_embedding.num_embeddings
        if words > known:
            raise ValueError(
                f"the tokenizer has {words} tokens and the text tower embeddings of {known}; put the file of merges that "
                "these weights were trained with beside them"
            )

    def count(self, prompt: str) -> int:
        return len(self.tokenizer.encode(prompt)) + 2

    def tokens(self, prompt: str) -> Tensor:
        return self.tokenizer(prompt)

    def states(self, tokens: Tensor) -> Tensor:
        return self.encoder(tokens)
