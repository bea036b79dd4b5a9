"""Prompts to embeddings, through a text encoder that is asked once per prompt."""

import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from rlr.io.text import quote


class PromptEncoder(nn.Module, ABC):
    r"""A frozen text encoder with a memory of the prompts last seen.

    Prompts are encoded one at a time: an embedding then is the same to the bit whatever batch it was first met in,
    so that a resumed run, which starts with an empty memory, equals an uninterrupted one.

    Args:
        encoder: The text encoder.
        length: How many tokens :math:`L` it reads, start and end included.
        capacity: How many embeddings are kept; the one not asked for longest goes first.
    """

    truncated: int
    """How many prompts, encoded so far, were longer than the encoder reads."""

    def __init__(self, encoder: nn.Module, length: int, capacity: int = 256) -> None:
        super().__init__()
        self.encoder = encoder
        self.length = length
        self.capacity = capacity
        self.truncated = 0
        self._cache: OrderedDict[str, Tensor] = OrderedDict()

    def forward(self, prompts: Sequence[str]) -> Tensor:
        r"""Returns the embeddings of :math:`B` prompts, with shape :math:`(B, L, D)`."""
        return torch.stack([self._lookup(prompt) for prompt in prompts])

    @abstractmethod
    def count(self, prompt: str) -> int:
        """Returns how many tokens a prompt has, start and end included."""

    @abstractmethod
    def tokens(self, prompt: str) -> Tensor:
        r"""Returns the tokens of a prompt, cut or padded, with shape :math:`(1, L)`."""

    @abstractmethod
    def states(self, tokens: Tensor) -> Tensor:
        r"""Returns the embeddings of tokens :math:`(B, L)`, with shape :math:`(B, L, D)`."""

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "PromptEncoder":
        # moved or cast: what is remembered lies on the old device, in the old type
        self._cache.clear()
        return super()._apply(fn, recurse)

    def _lookup(self, prompt: str) -> Tensor:
        embedding = self._cache.pop(prompt, None)
        if embedding is None:
            embedding = self._embed(prompt)
        self._cache[prompt] = embedding
        while len(self._cache) > self.capacity:
            self._cache.popitem(last=False)
        return embedding

    def _embed(self, prompt: str) -> Tensor:
        excess = self.count(prompt) - self.length
        if excess > 0:
            self._report(prompt, excess)
        device = next(self.encoder.parameters()).device
        # an embedding that is met first within inference mode or autocast may be used outside of it
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
            return self.states(self.tokens(prompt).to(device))[0]

    def _report(self, prompt: str, excess: int) -> None:
        self.truncated += 1
        if self.truncated == 1:
            warnings.warn(
                f"the last {excess} tokens of the prompt {quote(prompt)} are cut off, since the text encoder reads "
                f"{self.length}; further such prompts are only counted (in `truncated`)",
                stacklevel=2,
            )


class CLIPPrompts(PromptEncoder):
    """Prompts through tokenizer and text encoder of transformers' CLIP.

    Args:
        tokenizer: The tokenizer.
        encoder: The text encoder.
        capacity: How many embeddings are kept.
    """

    def __init__(self, tokenizer: CLIPTokenizer, encoder: CLIPTextModel, capacity: int = 256) -> None:
        super().__init__(encoder, min(tokenizer.model_max_length, encoder.config.max_position_embeddings), capacity)
        self.tokenizer = tokenizer

    def count(self, prompt: str) -> int:
        return len(self.tokenizer(prompt, verbose=False).input_ids)

    def tokens(self, prompt: str) -> Tensor:
        tokens = self.tokenizer(
            prompt, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        return tokens.input_ids

    def states(self, tokens: Tensor) -> Tensor:
        return self.encoder(tokens)[0]
