"""Prompts to the conditions of Stable Diffusion XL: two CLIP text encoders, the second with projection."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from rlr.models.folder import ModelFolder
from rlr.models.placement import TextPlacement
from rlr.models.text import PromptEncoder, Row, padded


class SDXLEncoders(nn.Module):
    """The two text encoders.

    Args:
        clip: The smaller CLIP.
        clip_2: The larger CLIP, with projection.
    """

    def __init__(self, clip: nn.Module, clip_2: nn.Module) -> None:
        super().__init__()
        self.clip = clip
        self.clip_2 = clip_2


def load_encoders(folder: ModelFolder, dtype: torch.dtype) -> SDXLEncoders:
    """Returns the text encoders of a folder."""
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    return SDXLEncoders(*(folder.network(kind, name, dtype=dtype) for name, kind in kinds.items()))


class SDXLPrompts(PromptEncoder):
    r"""Prompts to ``text``, the states of both encoders side by side, and ``pooled``, the projection of the second.

    ``text`` has shape :math:`(B, 77, D_1 + D_2)`: the states before the last layer of each encoder. ``pooled`` has shape
    :math:`(B, P)`. All padding is attended, so there is no mask.

    Args:
        folder: The model's folder.
        dtype: The type of the weights.
        empty_as_zeros: Whether both tensors of the empty prompt are zeros.
        placement: See :class:`~rlr.models.text.PromptEncoder`.
    """

    def __init__(
        self, folder: ModelFolder, dtype: torch.dtype, empty_as_zeros: bool, placement: TextPlacement | None = None
    ) -> None:
        parts = map(folder.fingerprint, ("text_encoder", "text_encoder_2"))
        identity = " ".join([*parts, str(dtype), str(empty_as_zeros)])
        tokenizers = tuple(folder.tokenizer(CLIPTokenizer, name) for name in ("tokenizer", "tokenizer_2"))
        length = tokenizers[0].model_max_length
        super().__init__(partial(load_encoders, folder, dtype), length, identity, placement)
        self.tokenizers = tokenizers
        self.empty_as_zeros = empty_as_zeros

    def count(self, prompt: str) -> int:
        return len(self.tokenizers[0](prompt, verbose=False).input_ids)

    def embed(self, encoder: Any, prompt: str, device: torch.device) -> Row:
        first, second = (
            network(self._tokens(tokenizer, prompt, device), output_hidden_states=True)
            for network, tokenizer in zip((encoder.clip, encoder.clip_2), self.tokenizers, strict=True)
        )
        text = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)[0]
        row = {"text": text, "pooled": second.text_embeds[0]}
        zeros = self.empty_as_zeros and prompt == ""
        return {name: torch.zeros_like(tensor) for name, tensor in row.items()} if zeros else row

    def _tokens(self, tokenizer: Any, prompt: str, device: torch.device) -> Tensor:
        return padded(tokenizer, prompt, tokenizer.model_max_length).to(device)
