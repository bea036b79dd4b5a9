"""Text encoders of published widths with one layer, and their tokenizers."""

from typing import Any

from transformers import (  # type: ignore[attr-defined]
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

from rlr.toy.world.tokenizer import build_tokenizer

T5_WIDTH = 4096
"""The width of the states of T5 v1.1 XXL and of UMT5 XXL."""


def words() -> CLIPTokenizer:
    """Returns a tokenizer of CLIP's class with the words of the built-in world, for prompts of 77 tokens."""
    tokens = build_tokenizer()
    tokens.model_max_length = 77
    return tokens


def t5_tokenizer() -> T5TokenizerFast:
    """Returns a tokenizer of T5's class with a token for each character of ASCII."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5TokenizerFast(vocab=[*special, *((chr(code), -3.0) for code in range(33, 127))], extra_ids=0)


def clip(width: int, heads: int, tokens: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Returns a text encoder of CLIP with two layers, since models read the states before the last one.

    Args:
        width: The width of its states and of its projection.
        heads: The number of its attention heads.
        tokens: Its tokenizer.
    """
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        max_position_embeddings=tokens.model_max_length,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def t5(tokens: T5TokenizerFast) -> T5EncoderModel:
    """Returns a T5 encoder with one layer of the width of T5 v1.1 XXL."""
    return T5EncoderModel(T5Config(vocab_size=len(tokens), **_xxl()))


def umt5(tokens: T5TokenizerFast) -> UMT5EncoderModel:
    """Returns a UMT5 encoder with one layer of the width of UMT5 XXL."""
    return UMT5EncoderModel(UMT5Config(vocab_size=len(tokens), **_xxl()))


def _xxl() -> dict[str, Any]:
    sizes = {"d_model": T5_WIDTH, "d_kv": 64, "d_ff": 10240, "num_heads": 64, "num_layers": 1}
    return {**sizes, "feed_forward_proj": "gated-gelu"}
