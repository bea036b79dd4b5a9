"""Prompts through T5, as the models read them that have no other text encoder."""

from functools import partial
from typing import Any

import torch
from transformers import T5EncoderModel, T5Tokenizer

from rlr.models.folder import ModelFolder
from rlr.models.placement import TextPlacement
from rlr.models.text import PromptEncoder, Row


class T5Prompts(PromptEncoder):
    r"""Prompts to ``text``, the states of T5 for :math:`L` tokens, the padding included, with shape :math:`(B, L, D)`.

    T5 itself attends to the padding, as in the pipelines of these models.

    Args:
        folder: The model's folder.
        dtype: The type of the weights.
        tokens: How many tokens :math:`L` are read, the end included.
        masked: Whether there is a ``text_mask``, False at the padding.
        placement: See :class:`~rlr.models.text.PromptEncoder`.
    """

    def __init__(
        self,
        folder: ModelFolder,
        dtype: torch.dtype,
        tokens: int,
        masked: bool = False,
        placement: TextPlacement | None = None,
    ) -> None:
        load = partial(folder.network, T5EncoderModel, "text_encoder", dtype=dtype)
        super().__init__(load, tokens, f"{folder.fingerprint('text_encoder')} {dtype} {tokens} {masked}", placement)
        self.tokenizer = folder.tokenizer(T5Tokenizer)
        self.masked = masked

    def count(self, prompt: str) -> int:
        return len(self.tokenizer(prompt, verbose=False).input_ids)

    def embed(self, encoder: Any, prompt: str, device: torch.device) -> Row:
        options = {"padding": "max_length", "max_length": self.length, "truncation": True, "return_tensors": "pt"}
        tokens = self.tokenizer(prompt, **options).to(device)
        row = {"text": encoder(tokens.input_ids)[0][0]}
        return row | {"text_mask": tokens.attention_mask[0].bool()} if self.masked else row
