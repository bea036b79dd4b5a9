"""Prompts to the conditions of FLUX.1: the pooled embedding of CLIP, and the states of T5."""

from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from rlr.models.folder import ModelFolder
from rlr.models.placement import TextPlacement
from rlr.models.text import PromptEncoder, Row, padded


class FluxEncoders(nn.Module):
    """The two text encoders.

    Args:
        clip: CLIP.
        t5: T5's encoder.
    """

    def __init__(self, clip: nn.Module, t5: nn.Module) -> None:
        super().__init__()
        self.clip = clip
        self.t5 = t5


def load_encoders(folder: ModelFolder, dtype: torch.dtype) -> FluxEncoders:
    """Returns the text encoders of a folder."""
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": T5EncoderModel}
    return FluxEncoders(*(folder.network(kind, name, dtype=dtype) for name, kind in kinds.items()))


class FluxPrompts(PromptEncoder):
    r"""Prompts to ``text``, the states of T5, and ``pooled``, the embedding that CLIP makes of the whole prompt.

    ``text`` has shape :math:`(B, L, D)` and ``pooled`` :math:`(B, P)`. All padding is attended, so there is no mask. CLIP reads
    the first 77 tokens of a prompt.

    Args:
        folder: The model's folder.
        dtype: The type of the weights.
        tokens: How many tokens :math:`L` T5 reads.
        placement: See :class:`~rlr.models.text.PromptEncoder`.
    """

    def __init__(
        self, folder: ModelFolder, dtype: torch.dtype, tokens: int = 512, placement: TextPlacement | None = None
    ) -> None:
        parts = map(folder.fingerprint, ("text_encoder", "text_encoder_2"))
        identity = " ".join([*parts, str(dtype), str(tokens)])
        clip, t5 = folder.tokenizer(CLIPTokenizer), folder.tokenizer(T5Tokenizer, "tokenizer_2")
        super().__init__(partial(load_encoders, folder, dtype), tokens, identity, placement)
        self.tokenizers = (clip, t5)

    def count(self, prompt: str) -> int:
        return len(self.tokenizers[1](prompt, verbose=False).input_ids)

    def embed(self, encoder: Any, prompt: str, device: torch.device) -> Row:
        clip, t5 = self.tokenizers
        pooled = encoder.clip(padded(clip, prompt, clip.model_max_length).to(device)).pooler_output
        return {"text": encoder.t5(padded(t5, prompt, self.length).to(device))[0][0], "pooled": pooled[0]}
