"""The size of Wan 2.1 with 1.3 billion weights."""

from typing import Any

from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

from experiments.cost.shapes.base import Shape
from experiments.cost.shapes.text import T5_WIDTH, t5_tokenizer, umt5
from rlr.models import LoRA, Wan
from rlr.models.base import DiffusionModel
from rlr.rewards import Brightness, FrameReward, RandomFrame
from rlr.samplers import FlowSDE

SIZE, FRAMES = (240, 416), 33
"""The pixels and frames of the shipped configs."""


def wan() -> WanPipeline:
    """Returns Wan 2.1's networks: latents 16 × 9 × 30 × 52 of 33 frames of 240 × 416 pixels, 1.4 billion weights."""
    tokens = t5_tokenizer()
    return WanPipeline(
        tokenizer=tokens,
        text_encoder=umt5(tokens),
        vae=AutoencoderKLWan(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=transformer(),
        transformer_2=None,
    )


def transformer() -> WanTransformer3DModel:
    """Returns the transformer by its published configuration."""
    return WanTransformer3DModel(
        num_attention_heads=12,
        attention_head_dim=128,
        in_channels=16,
        out_channels=16,
        text_dim=T5_WIDTH,
        freq_dim=256,
        ffn_dim=8960,
        num_layers=30,
        rope_max_seq_len=1024,
    )


def _model(path: str, dtype: Any) -> DiffusionModel:
    return Wan(path, dtype=dtype, size=SIZE, frames=FRAMES, trainable=LoRA(64, 128))


def _sampler(steps: int) -> FlowSDE:
    return FlowSDE(steps, noise_level=0.7)


def _reward() -> FrameReward:
    return FrameReward(Brightness(), RandomFrame())


WAN = Shape(wan, _model, _sampler, _reward, guidance=5.0, batch=1, steps=10, dtype="bfloat16")
