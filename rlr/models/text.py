"""Prompts to conditions, through a text encoder that reads each prompt once."""

import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from rlr.io.text import quote
from rlr.models.base import Condition
from rlr.models.placement import TextPlacement, WithModel

Row = dict[str, Tensor]
r"""The condition of one prompt, each tensor with shape :math:`(*)`; a mask, where there is one, is one of them."""


class PromptEncoder(nn.Module, ABC):
    r"""A frozen text encoder, or several, with a memory of the prompts last seen.

    Prompts are encoded one at a time: an embedding then is the same to the bit in every batch,
    so that a resumed run, which starts with an empty memory, equals an uninterrupted one.

    Args:
        load: Returns the text encoder.
        length: How many tokens :math:`L` it reads, start and end included.
        identity: Distinguishes this encoder and its weights from any other, for files of embeddings.
        placement: Where the encoder and the embeddings are kept; by default with the model, and 256 embeddings.
    """

    truncated: int
    """How many prompts, encoded so far, were longer than the encoder reads."""
    anchor: Tensor
    encoder: Any
    outside: Any
    load: Any

    def __init__(
        self, load: Callable[[], nn.Module], length: int, identity: str, placement: TextPlacement | None = None
    ) -> None:
        super().__init__()
        self.length = length
        self.identity = identity
        self.truncated = 0
        # follows the model to its device and type wherever the encoder is kept
        self.register_buffer("anchor", torch.zeros(1), persistent=False)
        self._cache: OrderedDict[str, Row] = OrderedDict()
        self.placement = placement or WithModel()
        self.placement.place(self, load)

    def forward(self, prompts: Sequence[str]) -> Condition:
        r"""Returns the condition of :math:`B` prompts."""
        return Condition.join([Condition({name: c[None] for name, c in row.items()}) for row in self._rows(prompts)])

    def opened(self) -> AbstractContextManager[Any]:
        """Returns a context with the text encoder."""
        return self.placement.opened(self)

    @abstractmethod
    def count(self, prompt: str) -> int:
        """Returns how many tokens a prompt has, start and end included."""

    @abstractmethod
    def embed(self, encoder: Any, prompt: str, device: torch.device) -> Row:
        r"""Returns the condition of one prompt that the encoder makes on a device.

        A sequence has either the same length for all prompts, with a mask ``NAME_mask`` of shape :math:`(L)` if padding is not to
        be read, or a length of its own; a batch is then padded to its longest, and masked.
        """

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "PromptEncoder":
        # moved or cast: the embeddings in memory have the old device and type
        self._cache.clear()
        return super()._apply(fn, recurse)

    def _rows(self, prompts: Sequence[str]) -> list[Row]:
        found = {prompt: row for prompt in dict.fromkeys(prompts) if (row := self._remembered(prompt)) is not None}
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in found]
        if missing:
            with self.opened() as encoder:
                found |= {prompt: self._encode(encoder, prompt) for prompt in missing}
        for prompt in prompts:
            self._cache[prompt] = found[prompt]
            self._cache.move_to_end(prompt)
        while len(self._cache) > self.placement.memory:
            self._cache.popitem(last=False)
        return [found[prompt] for prompt in prompts]

    def _remembered(self, prompt: str) -> Row | None:
        row = self._cache.get(prompt)
        if row is None and self.placement.store:
            row = self.placement.store.read(self._key(prompt))
        return None if row is None else {name: tensor.to(self.anchor.device) for name, tensor in row.items()}

    def _encode(self, encoder: Any, prompt: str) -> Row:
        excess = self.count(prompt) - self.length
        if excess > 0:
            self._report(prompt, excess)
        device = next(encoder.parameters()).device
        # an embedding that is first computed within inference mode or autocast may be used outside of it
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
            row = self.embed(encoder, prompt, device)
        if self.placement.store:
            self.placement.store.write(self._key(prompt), row)
        return {name: tensor.to(self.anchor.device) for name, tensor in row.items()}

    def _key(self, prompt: str) -> tuple[str, ...]:
        return (self.identity, str(self.anchor.dtype), self.placement.device(self).type, str(prompt))

    def _report(self, prompt: str, excess: int) -> None:
        self.truncated += 1
        if self.truncated == 1:
            warnings.warn(
                f"the last {excess} tokens of the prompt {quote(prompt)} are cut off, since the text encoder reads "
                f"{self.length}; further such prompts are only counted (in `truncated`)",
                stacklevel=2,
            )


class SequencePrompts(PromptEncoder):
    r"""Prompts to one sequence of embeddings, the tensor ``text`` with shape :math:`(B, L, D)`."""

    @abstractmethod
    def tokens(self, prompt: str) -> Tensor:
        r"""Returns the tokens of a prompt, cut or padded, with shape :math:`(1, L)`."""

    @abstractmethod
    def states(self, encoder: Any, tokens: Tensor) -> Tensor:
        r"""Returns the embeddings of tokens :math:`(B, L)`, with shape :math:`(B, L, D)`."""

    def embed(self, encoder: Any, prompt: str, device: torch.device) -> Row:
        return {"text": self.states(encoder, self.tokens(prompt).to(device))[0]}


class CLIPPrompts(SequencePrompts):
    """Prompts through tokenizer and text encoder of transformers' CLIP.

    Args:
        tokenizer: The tokenizer.
        load: Returns the text encoder.
        positions: How many positions the encoder has.
        identity: See :class:`PromptEncoder`.
        placement: See :class:`PromptEncoder`.
    """

    def __init__(
        self,
        tokenizer: CLIPTokenizer,
        load: Callable[[], nn.Module],
        positions: int,
        identity: str,
        placement: TextPlacement | None = None,
    ) -> None:
        super().__init__(load, min(tokenizer.model_max_length, positions), identity, placement)
        self.tokenizer = tokenizer

    def count(self, prompt: str) -> int:
        return len(self.tokenizer(prompt, verbose=False).input_ids)

    def tokens(self, prompt: str) -> Tensor:
        return padded(self.tokenizer, prompt, self.length)

    def states(self, encoder: Any, tokens: Tensor) -> Tensor:
        return encoder(tokens)[0]


def padded(tokenizer: Any, prompt: str, length: int) -> Tensor:
    r"""Returns the tokens of a prompt, cut or padded to :math:`L`, with shape :math:`(1, L)`."""
    options = {"padding": "max_length", "max_length": length, "truncation": True, "return_tensors": "pt"}
    tokens: Tensor = tokenizer(prompt, **options).input_ids
    return tokens
