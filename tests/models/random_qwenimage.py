"""A small Qwen-Image with random weights, in the folder layout of diffusers."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from tests.models.qwen_tokenizer import qwen_tokenizer
from tests.models.random_zimage import excite

WIDTH = 24
"""The width of the language model's states."""
SCHEDULER = {
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 0.9,
    "base_image_seq_len": 16,
    "max_image_seq_len": 512,
    "shift_terminal": 0.02,
}
"""The published settings, of fewer tokens."""


def transformer() -> QwenImageTransformer2DModel:
    return QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=12,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 4),
    )


def vae() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[True],
        latents_mean=[0.3, -0.2, 0.1, 0.5],
        latents_std=[1.4, 0.8, 1.1, 2.0],
    )


def qwen_vl(vocabulary: int) -> Qwen2_5_VLForConditionalGeneration:
    text = {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [1, 1, 2]},
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [0],
    }
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def write_random_qwenimage(folder: str | Path, seed: int = 0, **options: object) -> Path:
    """Writes a random Qwen-Image of 4 latent channels at half the size and returns its folder.

    Args:
        folder: Where to write it.
        seed: Decides the weights; the global generator is left as it was.
        options: Settings of the scheduler, in the place of ``SCHEDULER``'s.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words, network = qwen_tokenizer(), transformer()
        excite(network, seed, ("to_out.0.weight", "txt_in.weight", "norm_out.linear.weight", "_mod.1.weight"))
        pipeline = QwenImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER | options),
            vae=vae(),
            text_encoder=qwen_vl(len(words)),
            tokenizer=words,
            transformer=network,
        )
    pipeline.save_pretrained(folder)
    return Path(folder)
