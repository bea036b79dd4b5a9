"""Prompts to the conditions of HunyuanVideo 1.5: the states of a language model, and those of ByT5 for text within quotes."""

import re
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import (  # type: ignore[attr-defined]
    ByT5Tokenizer,
    Qwen2_5_VLTextModel,
    Qwen2Tokenizer,
    T5EncoderModel,
)

from rlr.models.folder import ModelFolder
from rlr.models.language_text import LanguagePrompts
from rlr.models.placement import TextPlacement
from rlr.models.text import Row

INSTRUCTION = (
    "You are a helpful assistant. Describe the video by detailing the following aspects:",
    "1. The main content and theme of the video.",
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.",
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects.",
    "4. background environment, light, style and atmosphere.",
    "5. camera angles, movements, and transitions used in the video.",
)
"""What the language model is asked to do, as published."""
GAP = 9 * " "
"""What is between the lines of the instruction, as published."""
SKIP = 108
"""How many tokens at the start are left out of the states, those of the instruction."""
GLYPHS = 256
"""How many tokens ByT5 reads."""


class HunyuanEncoders(nn.Module):
    """The two text encoders.

    Args:
        language: The language model.
        byt5: ByT5's encoder.
    """

    def __init__(self, language: nn.Module, byt5: nn.Module) -> None:
        super().__init__()
        self.language = language
        self.byt5 = byt5


def load_encoders(folder: ModelFolder, dtype: torch.dtype) -> HunyuanEncoders:
    """Returns the text encoders of a folder."""
    kinds = {"text_encoder": Qwen2_5_VLTextModel, "text_encoder_2": T5EncoderModel}
    return HunyuanEncoders(*(folder.network(kind, name, dtype=dtype) for name, kind in kinds.items()))


class HunyuanPrompts(LanguagePrompts):
    r"""Prompts to ``text``, the language model's states two layers before the last, and ``glyphs``, ByT5's of what is in quotes.

    ``text`` has shape :math:`(B, L, D)` and ``glyphs`` :math:`(B, G, E)`, with lengths of their own for each prompt, and
    :math:`G = 0` for a prompt without quotes; a batch is padded and masked.

    Args:
        folder: The model's folder.
        dtype: The type of the weights.
        tokens: How many tokens of a prompt the language model reads, the end of the template included.
        placement: See :class:`~rlr.models.text.PromptEncoder`.
    """

    def __init__(
        self, folder: ModelFolder, dtype: torch.dtype, tokens: int = 1000, placement: TextPlacement | None = None
    ) -> None:
        parts = map(folder.fingerprint, ("text_encoder", "text_encoder_2"))
        identity = " ".join([*parts, str(dtype), str(tokens)])
        tokenizer = folder.tokenizer(Qwen2Tokenizer)
        load, template = partial(load_encoders, folder, dtype), partial(_question, tokenizer)
        super().__init__(load, tokenizer, template, -3, SKIP, tokens + SKIP, identity, placement)
        self.bytes = folder.tokenizer(ByT5Tokenizer, "tokenizer_2")

    def embed(self, encoder: Any, prompt: str, device: torch.device) -> Row:
        row = super().embed(encoder.language, prompt, device)
        quoted = quotations(prompt)
        if not quoted:
            return row | {"glyphs": row["text"].new_zeros(0, encoder.byt5.config.d_model)}
        options = {"max_length": GLYPHS, "truncation": True, "return_tensors": "pt"}
        tokens = self.bytes(quoted, **options).to(device)
        return row | {"glyphs": encoder.byt5(tokens.input_ids, tokens.attention_mask.float())[0][0]}


def quotations(prompt: str) -> str:
    """Returns what ByT5 reads of a prompt: ``Text "…". `` for each different text within straight or curly quotes."""
    found = [straight or curly for straight, curly in re.findall(r'"(.*?)"|“(.*?)”', prompt)]
    return "".join(f'Text "{text}". ' for text in dict.fromkeys(found))


def _question(tokenizer: Any, prompt: str) -> str:
    """Returns the prompt as a user's message to the language model, as the pipeline asks it."""
    messages = [{"role": "system", "content": GAP.join(INSTRUCTION)}, {"role": "user", "content": prompt or " "}]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text
