"""Weights of a Stable Diffusion 1.x or 2.x under the names of its authors' file, which holds all parts."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from rlr.models.layout import Layout, resnet, vae_layout

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."
"""Where the weights of each part are; 1.x has the text encoder of CLIP, 2.x that of OpenCLIP."""

OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
"""The children of a layer of the text encoder in transformers and in OpenCLIP."""


def original_state(unet: Mapping[str, Tensor], vae: Any, text: Any, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the weights of all parts under the names of the authors' file.

    Args:
        unet: The weights of the U-Net, without a LoRA.
        vae: The autoencoder.
        text: The text encoder.
        config: The configuration of the U-Net.
    """
    theirs = unet_layout(config).to_theirs(unet)
    autoencoder = vae_layout(len(vae.config.block_out_channels), vae.config.layers_per_block)
    parts = {UNET: theirs, VAE: autoencoder.to_theirs(vae.state_dict()), **_text(text)}
    return {prefix + name: weight for prefix, state in parts.items() for name, weight in state.items()}


def unet_layout(config: Mapping[str, Any]) -> Layout:
    """Returns the names of a U-Net's modules; ``config`` is its configuration in diffusers."""
    return Layout(dict(_unet_modules(config)))


def _unet_modules(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from (("time_embed.0", "time_embedding.linear_1"), ("time_embed.2", "time_embedding.linear_2"))
    yield "input_blocks.0.0", "conv_in"
    yield from _down(config["down_block_types"], config["layers_per_block"])
    for theirs, ours in ((0, 0), (2, 1)):
        yield from resnet(f"middle_block.{theirs}", f"mid_block.resnets.{ours}")
    yield "middle_block.1", "mid_block.attentions.0"
    yield from _up(config["up_block_types"], config["layers_per_block"] + 1)
    yield from (("out.0", "conv_norm_out"), ("out.2", "conv_out"))


def _down(kinds: list[str], layers: int) -> Iterator[tuple[str, str]]:
    for level, kind in enumerate(kinds):
        # the convolution that halves the size is one more of the input blocks
        first = 1 + level * (layers + 1)
        for layer in range(layers):
            yield from _block(f"input_blocks.{first + layer}", f"down_blocks.{level}", layer, "Attn" in kind)
        yield f"input_blocks.{first + layers}.0.op", f"down_blocks.{level}.downsamplers.0.conv"


def _up(kinds: list[str], layers: int) -> Iterator[tuple[str, str]]:
    for level, kind in enumerate(kinds):
        for layer in range(layers):
            yield from _block(f"output_blocks.{level * layers + layer}", f"up_blocks.{level}", layer, "Attn" in kind)
        # the convolution that doubles the size comes after what the last block holds
        last, position = (level + 1) * layers - 1, 2 if "Attn" in kind else 1
        yield f"output_blocks.{last}.{position}.conv", f"up_blocks.{level}.upsamplers.0.conv"


def _block(theirs: str, ours: str, layer: int, attended: bool) -> Iterator[tuple[str, str]]:
    yield from resnet(f"{theirs}.0", f"{ours}.resnets.{layer}")
    if attended:
        yield f"{theirs}.1", f"{ours}.attentions.{layer}"


def _text(encoder: Any) -> dict[str, dict[str, Tensor]]:
    """Returns the weights of a text encoder by their prefix; OpenCLIP's has the exact GELU."""
    state = {name.removeprefix("text_model."): weight for name, weight in encoder.state_dict().items()}
    if encoder.config.hidden_act == "quick_gelu":
        return {CLIP: state}
    return {OPEN_CLIP: _open_clip(state, encoder.config.num_hidden_layers)}


def _open_clip(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    modules = {"final_layer_norm": "ln_final", "embeddings.token_embedding": "token_embedding"}
    fused: dict[str, Tensor] = {}
    for k in range(layers):
        ours, theirs = f"encoder.layers.{k}", f"transformer.resblocks.{k}"
        modules |= {f"{ours}.{child}": f"{theirs}.{name}" for child, name in OPEN_CLIP_LAYER.items()}
        for kind in ("weight", "bias"):
            rows = [state[f"{ours}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            fused[f"{theirs}.attn.in_proj_{kind}"] = torch.cat(rows)
    # a table of positions and not a module
    fused["positional_embedding"] = state["embeddings.position_embedding.weight"]
    alone = {name: weight for name, weight in state.items() if name.rpartition(".")[0] in modules}
    return Layout(modules).to_ours(alone) | fused
