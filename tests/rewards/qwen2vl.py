"""A small Qwen2-VL without weights, in the layout of transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and Qwen2-VL's special tokens."""
    letters = {letter: k for k, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(letters, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token=None)
    fast.add_special_tokens({"additional_special_tokens": SPECIAL})
    return fast


def write_base(folder: Path) -> tuple[Qwen2VLConfig, PreTrainedTokenizerFast]:
    """Writes configuration and tokenizer, and returns them."""
    words = tokenizer()
    words.save_pretrained(folder)
    ids = dict(zip(SPECIAL, words.convert_tokens_to_ids(SPECIAL), strict=True))
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(words) + 40, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            "bos_token_id": 0, "eos_token_id": 0,
        },
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    config.save_pretrained(folder)
    return config, words


def by_the_authors(
    model: Any, words: Any, pad: str, grid: Tensor, features: Sequence[Tensor], instruction: str, prompt: str
) -> tuple[Tensor, Tensor]:
    """The message, embedding, scatter and language model on sequential positions, as published.

    Args:
        model: The model.
        words: Its tokenizer.
        pad: The token whose places the patches take.
        grid: The numbers of frames, rows and columns of patches.
        features: What the vision tower makes of them.
        instruction: What is asked.
        prompt: The prompt.

    Returns:
        The tokens of the message and the last hidden states, each of one sample.
    """
    text = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        + pad * (int(grid.prod()) // 4)
        + "<|vision_end|>"
        + instruction.replace("{prompt}", prompt)
        + "<|im_end|>\n<|im_start|>assistant\n"
    )
    tokens = words(text, return_tensors="pt").input_ids
    embedded = model.get_input_embeddings()(tokens)
    mask = (tokens == words.convert_tokens_to_ids(pad)).unsqueeze(-1).expand_as(embedded)
    filled = embedded.masked_scatter(mask, torch.cat(list(features)))
    return tokens, model.model.language_model(inputs_embeds=filled)[0]
