"""A small Z-Image with random weights, in the folder layout of diffusers."""

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from torch import nn
from transformers import Qwen3Config, Qwen3Model

from tests.models.qwen_tokenizer import qwen_tokenizer
from tests.models.random_sd3 import vae

WIDTH = 24
"""The width of the language model's states."""


def transformer() -> ZImageTransformer2DModel:
    return ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[4, 6, 6],
        axes_lens=[256, 32, 32],
    )


def qwen3(vocabulary: int) -> Qwen3Model:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 3, "head_dim": 8}
    return Qwen3Model(Qwen3Config(vocab_size=vocabulary, num_attention_heads=3, num_key_value_heads=1, **sizes))


def excite(network: nn.Module, seed: int, ends: tuple[str, ...]) -> None:
    """Draws weights anew that training starts with small ones, without which conditions hardly matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        if name.endswith(ends) or weight.abs().max() == 0:
            weight.data = 0.2 * torch.randn(weight.shape, generator=generator)


def write_random_zimage(folder: str | Path, seed: int = 0, **options: object) -> Path:
    """Writes a random Z-Image of 32 x 32 images (latents 4 x 16 x 16) and returns its folder.

    Args:
        folder: Where to write it.
        seed: Decides the weights; the global generator is left as it was.
        options: Settings of the scheduler, by default ``shift=6.0``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words, network = qwen_tokenizer(), transformer()
        excite(network, seed, ("to_out.0.weight", "cap_embedder.1.weight", "adaLN_modulation.1.weight"))
        pipeline = ZImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 6.0} | options),
            vae=vae(),
            text_encoder=qwen3(len(words)),
            tokenizer=words,
            transformer=network,
        )
    pipeline.save_pretrained(folder)
    return Path(folder)
