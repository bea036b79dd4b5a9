"""Prompts to the conditions of Stable Diffusion 3: two CLIP text encoders with projection, and T5."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from rlr.models.folder import ModelFolder
from rlr.models.placement import TextPlacement
from rlr.models.text import PromptEncoder, Row, padded


class SD3Encoders(nn.Module):
    """The three text encoders.

    Args:
        clip: The smaller CLIP.
        clip_2: The larger CLIP.
        t5: T5's encoder, or None.
    """

    def __init__(self, clip: nn.Module, clip_2: nn.Module, t5: nn.Module | None) -> None:
        super().__init__()
        self.clip = clip
        self.clip_2 = clip_2
        self.t5 = t5


def load_encoders(folder: ModelFolder, dtype: torch.dtype, t5: bool) -> SD3Encoders:
    """Returns the text encoders of a folder."""
    names = ("text_encoder", "text_encoder_2")
    clip, clip_2 = (folder.network(CLIPTextModelWithProjection, name, dtype=dtype) for name in names)
    return SD3Encoders(clip, clip_2, folder.network(T5EncoderModel, "text_encoder_3", dtype=dtype) if t5 else None)


class SD3Prompts(PromptEncoder):
    r"""Prompts to ``text``, the states of CLIP and T5 one after the other, and ``pooled``, CLIP's projections.

    ``text`` has shape :math:`(B, 77 + L, D)`: the states before the last layer of both CLIPs side by side, padded with
    zeros to T5's width :math:`D`, then T5's states. All padding is attended, so there is no mask.

    Args:
        folder: The model's folder.
        dtype: The type of the weights.
        width: The width :math:`D` that the transformer reads.
        t5: Whether T5 is loaded; zeros stand in its place otherwise.
        tokens: How many tokens :math:`L` T5 reads.
        placement: See :class:`~rlr.models.text.PromptEncoder`.
    """

    def __init__(
        self,
        folder: ModelFolder,
        dtype: torch.dtype,
        width: int,
        t5: bool = True,
        tokens: int = 256,
        placement: TextPlacement | None = None,
    ) -> None:
        parts = ("text_encoder", "text_encoder_2", *(["text_encoder_3"] if t5 else []))
        identity = " ".join([*map(folder.fingerprint, parts), str(dtype), str(width), str(tokens)])
        clips = [folder.tokenizer(CLIPTokenizer, name) for name in ("tokenizer", "tokenizer_2")]
        third = folder.tokenizer(T5Tokenizer, "tokenizer_3") if t5 else None
        length = tokens if t5 else clips[0].model_max_length
        super().__init__(partial(load_encoders, folder, dtype, t5), length, identity, placement)
        self.clip_length = clips[0].model_max_length
        self.tokenizers = (*clips, third)
        self.width = width
        self.tokens = tokens

    def count(self, prompt: str) -> int:
        tokenizer: Any = self.tokenizers[2] or self.tokenizers[0]
        return len(tokenizer(prompt, verbose=False).input_ids)

    def embed(self, encoder: Any, prompt: str, device: torch.device) -> Row:
        (first, pooled), (second, pooled_2) = (
            self._clip(network, tokenizer, prompt, device)
            for network, tokenizer in zip((encoder.clip, encoder.clip_2), self.tokenizers[:2], strict=True)
        )
        clip = torch.cat([first, second], -1)
        wide = functional.pad(clip, (0, self.width - clip.shape[-1]))
        return {
            "text": torch.cat([wide, self._t5(encoder.t5, prompt, wide)], 1)[0],
            "pooled": torch.cat([pooled, pooled_2], -1)[0],
        }

    def _clip(self, network: Any, tokenizer: Any, prompt: str, device: torch.device) -> tuple[Tensor, Tensor]:
        output = network(padded(tokenizer, prompt, self.clip_length).to(device), output_hidden_states=True)
        return output.hidden_states[-2], output[0]

    def _t5(self, network: Any, prompt: str, like: Tensor) -> Tensor:
        if network is None:
            return like.new_zeros(1, self.tokens, self.width)
        states: Tensor = network(padded(self.tokenizers[2], prompt, self.tokens).to(like.device))[0]
        return states
