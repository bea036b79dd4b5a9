"""The real checkpoints' layouts, from their published configurations, without their weights."""

from collections import Counter
from typing import Any

import pytest
import torch
from diffusers import QwenImageTransformer2DModel, WanTransformer3DModel, ZImageTransformer2DModel

from rlr.models import LoRA
from rlr.models.adapters import ADAPTER, ATTENTION
from rlr.models.qwen_image import TARGETS as QWEN
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
LAYOUTS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...], int, int, int]] = {
    # class, config.json, LoRA targets, LoRA layers, parameters, names in the file
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
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": (
        WanTransformer3DModel,
        WAN_SETTINGS
        | {"num_attention_heads": 24, "num_layers": 30, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48},
        WAN,
        10 * 30,
        4_999_787_712,
        825,
    ),
}
"""Parameters and names are counts of these classes; the files' own are at hand for Z-Image alone. Wan 2.2 A14B has twice 14B."""
BILLIONS = {
    "Tongyi-MAI/Z-Image": 6,
    "Qwen/Qwen-Image": 20,
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": 1.3,
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": 14,
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": 5,
}
"""The published sizes."""


def empty(name: str) -> torch.nn.Module:
    kind, config, *_ = LAYOUTS[name]
    with torch.device("meta"):
        return kind.from_config(config).requires_grad_(False)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_network_has_the_published_size(name: str) -> None:
    _, _, _, _, parameters, names = LAYOUTS[name]
    network = empty(name)
    found = sum(weight.numel() for weight in network.parameters())
    assert (found, len(network.state_dict())) == (parameters, names)
    assert found / 1e9 == pytest.approx(BILLIONS[name], rel=0.1)


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
    assert len(set(ends.values())) == 1
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    assert len(trained) == 2 * layers
    assert all(1 in weight.shape for weight in trained)
