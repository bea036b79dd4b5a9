"""Prompts through UMT5, as Wan reads them."""

from functools import partial
from typing import Any

import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch.nn import functional
from transformers import T5Tokenizer, UMT5EncoderModel

from rlr.models.folder import ModelFolder
from rlr.models.placement import TextPlacement
from rlr.models.text import PromptEncoder, Row


class UMT5Prompts(PromptEncoder):
    r"""Prompts to ``text``, the states of UMT5 followed by zeros, with shape :math:`(B, L, D)`; all of it is attended.

    Prompts are cleaned as by the pipeline: HTML entities and runs of white space are replaced.

    Args:
        folder: The model's folder.
        dtype: The type of the weights.
        tokens: How many tokens :math:`L` are read, the end included.
        placement: See :class:`~rlr.models.text.PromptEncoder`.
    """

    def __init__(
        self, folder: ModelFolder, dtype: torch.dtype, tokens: int = 512, placement: TextPlacement | None = None
    ) -> None:
        load = partial(folder.network, UMT5EncoderModel, "text_encoder", dtype=dtype)
        super().__init__(load, tokens, f"{folder.fingerprint('text_encoder')} {dtype} {tokens}", placement)
        self.tokenizer = folder.tokenizer(T5Tokenizer)

    def count(self, prompt: str) -> int:
        return len(self.tokenizer(prompt_clean(prompt), verbose=False).input_ids)

    def embed(self, encoder: Any, prompt: str, device: torch.device) -> Row:
        options = {"max_length": self.length, "truncation": True, "return_tensors": "pt"}
        tokens = self.tokenizer(prompt_clean(prompt), **options).to(device)
        states = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state[0]
        return {"text": functional.pad(states, (0, 0, 0, self.length - len(states)))}
