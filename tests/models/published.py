"""What is published of the checkpoints: configurations of the denoisers, and names and sizes of their weights."""

from typing import Any

SDXL: dict[str, Any] = {
    "act_fn": "silu",
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}
"""``unet/config.json`` of stabilityai/stable-diffusion-xl-base-1.0, without the settings that are null or of no effect."""

FLUX1: dict[str, Any] = {
    "attention_head_dim": 128,
    "guidance_embeds": True,
    "in_channels": 64,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 19,
    "num_single_layers": 38,
    "patch_size": 1,
    "pooled_projection_dim": 768,
}
"""``transformer/config.json`` of black-forest-labs/FLUX.1-dev."""

FLUX1_BYTES = 23_802_816_640
"""``total_size`` in the index of its weights, of 2 bytes each."""


def _affine(*layers: str) -> set[str]:
    """Returns the names of the weights of linear layers."""
    return {f"{layer}.{kind}" for layer in layers for kind in ("bias", "weight")}


FLUX1_ENDS = _affine("context_embedder", "norm_out.linear", "proj_out", "x_embedder")
FLUX1_SINGLE = {"attn.norm_k.weight", "attn.norm_q.weight"} | _affine(
    "attn.to_k", "attn.to_q", "attn.to_v", "norm.linear", "proj_mlp", "proj_out"
)
FLUX1_DOUBLE = {f"attn.norm_{name}.weight" for name in ("k", "q", "added_k", "added_q")} | _affine(
    *(f"attn.{name}" for name in ("to_k", "to_q", "to_v", "to_out.0")),
    *(f"attn.{name}" for name in ("add_k_proj", "add_q_proj", "add_v_proj", "to_add_out")),
    *(f"{stream}.net.{layer}" for stream in ("ff", "ff_context") for layer in ("0.proj", "2")),
    "norm1.linear",
    "norm1_context.linear",
)
"""The names of the weights in the index: outside of blocks, but for the embedding of the time, and in the two kinds of blocks."""

FLUX2: dict[str, Any] = {
    "attention_head_dim": 128,
    "axes_dims_rope": [32, 32, 32, 32],
    "in_channels": 128,
    "mlp_ratio": 3.0,
    "patch_size": 1,
    "rope_theta": 2000,
    "timestep_guidance_channels": 256,
}
FLUX2_SIZES: dict[str, dict[str, Any]] = {
    "klein-4B": {
        "num_layers": 5,
        "num_single_layers": 20,
        "num_attention_heads": 24,
        "joint_attention_dim": 7680,
        "guidance_embeds": False,
    },
    "klein-9B": {
        "num_layers": 8,
        "num_single_layers": 24,
        "num_attention_heads": 32,
        "joint_attention_dim": 12288,
        "guidance_embeds": False,
    },
    "dev": {
        "num_layers": 8,
        "num_single_layers": 48,
        "num_attention_heads": 48,
        "joint_attention_dim": 15360,
        "guidance_embeds": True,
    },
}
"""The sizes of FLUX.2 in its authors' code, under the names of diffusers; base and distilled klein have the same."""
