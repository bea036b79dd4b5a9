"""Qwen2-VL as a judge: it reads pixels and a message, and a head reads its hidden states at special tokens.

References:
    | Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution (Wang et al., 2024)
    | https://arxiv.org/abs/2409.12191
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoTokenizer

from rlr.io.text import quote
from rlr.io.weights import blank, compare, fill
from rlr.rewards.networks.pretrained import pretrained

FACTOR, PATCH, FRAMES = 28, 14, 2
"""The sides of what one token of the language model sees and of a patch in pixels, and the frames that a patch spans."""
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
"""The tokens whose places an image and a video take."""
HEAD = "rm_head."
"""How the names of a head's weights begin; a head computes in float32."""

CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>{seen}<|vision_end|>{text}"
    "<|im_end|>\n<|im_start|>assistant\n"
)
"""Qwen2-VL's format of a message with an image or a video."""


class Resize(ABC):
    """A way to resize images to any height and width."""

    differentiable: bool = True
    """Whether the result has a gradient in the pixels."""

    @abstractmethod
    def __call__(self, samples: Tensor, height: int, width: int) -> Tensor:
        r"""Returns pixels in [0, 1], with shape :math:`(B, 3, H, W)`, at another size."""


class Reader(nn.Module):
    """Qwen2-VL without its output layer.

    Args:
        config: The configuration of Qwen2-VL.
        vocabulary: The number of tokens.
    """

    def __init__(self, config: Any, vocabulary: int) -> None:
        from transformers import Qwen2VLModel

        super().__init__()
        config.get_text_config().vocab_size = vocabulary
        model = Qwen2VLModel(config)
        self.visual, self.language_model = model.visual, model.language_model
        self.width: int = config.get_text_config().hidden_size

    def read(self, patches: Tensor, grid: Tensor, tokens: Tensor, seen: int) -> Tensor:
        r"""Returns the last hidden states of a message, with shape :math:`(L, D)`.

        Args:
            patches: The patches of an image or a video, see :func:`to_patches`.
            grid: The numbers of frames, rows and columns of patches, with shape :math:`(1, 3)`.
            tokens: The tokens of the message, with shape :math:`(1, L)`.
            seen: The token whose places the image or the video takes.
        """
        features = self.visual(patches.to(self.visual.dtype), grid_thw=grid).pooler_output
        embedded = self.language_model.embed_tokens(tokens)
        places = (tokens == seen).unsqueeze(-1).expand_as(embedded)
        embedded = embedded.masked_scatter(places, features.to(embedded))
        # positions count tokens, as in the programs of HPSv3 and VideoAlign, and not rows and columns as in Qwen2-VL itself
        states: Tensor = self.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        return states[0]


def load_tokenizer(base: str, special: Sequence[str]) -> Any:
    """Returns the tokenizer of a folder or hub id, with special tokens of a reward."""
    tokenizer = pretrained(AutoTokenizer, base)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer


def load_network(
    kind: Callable[[Any, int], Reader], base: str, state: Mapping[str, Tensor], file: Path, label: str, dtype: str
) -> Any:
    """Returns a frozen network with the weights of a file.

    Args:
        kind: Makes the network from the configuration of Qwen2-VL and the number of tokens.
        base: The folder or hub id of the configuration.
        state: The weights under the names of :func:`renamed`.
        file: Their file, for messages.
        label: The name of the reward, for messages.
        dtype: The precision of Qwen2-VL; that of the head is float32.

    Raises:
        ValueError: If the weights are not those of the network.
    """
    config, rows = pretrained(AutoConfig, base), len(state.get("language_model.embed_tokens.weight", ()))
    network = blank(lambda: kind(config, rows))
    compare(network.state_dict(), state, file, label)
    heads = {name: weight.float() for name, weight in state.items() if name.startswith(HEAD)}
    return fill(network, {name: w.to(getattr(torch, dtype)) for name, w in state.items()} | heads)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights under the names of :class:`Reader`, from those of older or newer versions of transformers.

    The weights of the output layer ``lm_head``, which a head does not use, are left out.
    """
    rules: list[tuple[str, str]] = [
        (r"^model\.(visual|language_model)\.", r"\1."),
        (r"^model\.", "language_model."),
    ]
    found = {}
    for name, weight in state.items():
        if not name.startswith("lm_head."):
            new = next((re.sub(old, to, name) for old, to in rules if re.match(old, name)), name)
            found[new] = weight
    return found


def write_message(tokenizer: Any, seen: str, grid: Tensor, instruction: str, prompt: str) -> Tensor:
    r"""Returns the tokens of a message, with shape :math:`(1, L)`.

    Args:
        tokenizer: The tokenizer.
        seen: :data:`IMAGE` or :data:`VIDEO`.
        grid: The numbers of frames, rows and columns of patches, with shape :math:`(1, 3)`.
        instruction: What is asked, with ``{prompt}`` for the prompt.
        prompt: The prompt.

    Raises:
        ValueError: If the prompt has special tokens, which would be read as tokens.
    """
    if "<|" in prompt:
        raise ValueError(f"expected a prompt without special tokens <|…|>, got {quote(prompt)}; remove them")
    places = seen * int(grid.prod() // (FACTOR // PATCH) ** 2)
    text = CHAT.replace("{seen}", places).replace("{text}", instruction).replace("{prompt}", prompt)
    tokens: Tensor = tokenizer(text, return_tensors="pt").input_ids
    return tokens.to(grid.device)


def recomputed(function: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """Returns ``function(pixels)``; the backward pass computes it again, which limits the memory to that of one sample."""
    if not pixels.requires_grad:
        return function(pixels)
    result: Tensor = checkpoint(function, pixels, use_reentrant=False, preserve_rng_state=False)
    return result


def resized(height: int, width: int, least: int, most: int, factor: int = FACTOR) -> tuple[int, int]:
    """Returns height and width as multiples of ``factor`` with nearly the same ratio, and ``least`` to ``most`` pixels.

    Raises:
        ValueError: If one side is more than 200 times the other.
    """
    if max(height, width) > 200 * min(height, width):
        raise ValueError(f"expected sides of a ratio of at most 200, got {height} × {width} pixels; crop the samples")
    h, w = (max(factor, round(side / factor) * factor) for side in (height, width))
    if h * w > most:
        scale = math.sqrt(height * width / most)
        h, w = (max(factor, math.floor(side / scale / factor) * factor) for side in (height, width))
    elif h * w < least:
        scale = math.sqrt(least / (height * width))
        h, w = (math.ceil(side * scale / factor) * factor for side in (height, width))
    return h, w


def patch_grid(frames: Tensor) -> Tensor:
    """Returns the numbers of frames, rows and columns of the patches of :func:`to_patches`, with shape (1, 3)."""
    count, _, height, width = frames.shape
    return torch.tensor([[count // FRAMES, height // PATCH, width // PATCH]], device=frames.device)


def to_patches(frames: Tensor) -> Tensor:
    r"""Returns the patches of a video :math:`(F, 3, H, W)`, two frames each, grouped by the 2 × 2 that one token sees.

    Their shape is :math:`(F/2 \cdot HW / 14^2, 3 \cdot 2 \cdot 14^2)`. An image is a video of twice the same frame.
    """
    count, channels, height, width = frames.shape
    merge = FACTOR // PATCH
    times, rows, columns = count // FRAMES, height // FACTOR, width // FACTOR
    split = frames.reshape(times, FRAMES, channels, rows, merge, PATCH, columns, merge, PATCH)
    return split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(times * rows * columns * merge**2, -1)
