"""The names of weights in its authors' files, and in the modules of diffusers that compute the same."""

from collections.abc import Iterable, Iterator

from rlr.models.layout import Layout, resnet
from rlr.models.videocrafter.network import UNetConfig

CHILDREN = (
    *(
        "time_embed",
        "fps_embedding",
        "time_cond_proj",
        "input_blocks",
        "init_attn",
        "middle_block",
        "output_blocks",
        "out",
    ),
    *("in_layers", "emb_layers", "out_layers", "skip_connection", "temopral_conv", "op", "conv"),
    *("conv1", "conv2", "conv3", "conv4"),
    *("norm", "proj_in", "transformer_blocks", "proj_out"),
    *("attn1", "ff", "attn2", "norm1", "norm2", "norm3"),
    *("to_q", "to_k", "to_v", "to_out", "relative_position_k", "relative_position_v", "embeddings_table"),
    *("net", "proj", "weight", "bias"),
)
"""The names of the denoiser's modules and weights; those of one module in the order in which its authors' class defines them."""


def in_order(names: Iterable[str]) -> list[str]:
    """Returns names of the denoiser's weights, its authors' without their prefix, in the order in which their program walks."""
    return sorted(names, key=lambda name: [int(p) if p.isdigit() else CHILDREN.index(p) for p in name.split(".")])


def unet_layout(config: UNetConfig) -> Layout:
    """Returns the names of a denoiser, its authors' without their prefix."""
    return Layout(dict(_unet_modules(config)))


def _unet_modules(config: UNetConfig) -> Iterator[tuple[str, str]]:
    time = "time_embedding.time" if config.fps_cond else "time_embedding"
    for theirs, ours in (("time_embed", time), ("fps_embedding", "time_embedding.fps")):
        yield from ((f"{theirs}.0", f"{ours}.linear_1"), (f"{theirs}.2", f"{ours}.linear_2"))
    yield "time_cond_proj", f"{time}.cond_proj"
    yield "input_blocks.0.0", "conv_in"
    yield from _temporal("init_attn.0", "transformer_in")
    yield from _down(config)
    yield from _block("middle_block", "mid_block", 0, attended=True)
    yield from _resnet("middle_block.3", "mid_block", 1)
    yield from _up(config)
    yield from (("out.0", "conv_norm_out"), ("out.2", "conv_out"))


def _down(config: UNetConfig) -> Iterator[tuple[str, str]]:
    index = 1
    for level, attended in enumerate(config.attended):
        for layer in range(config.num_res_blocks):
            yield from _block(f"input_blocks.{index}", f"down_blocks.{level}", layer, attended)
            index += 1
        # the last level has no layer of this name
        yield f"input_blocks.{index}.0.op", f"down_blocks.{level}.downsamplers.0.conv"
        index += 1


def _up(config: UNetConfig) -> Iterator[tuple[str, str]]:
    index = 0
    for level, attended in enumerate(reversed(config.attended)):
        for layer in range(config.num_res_blocks + 1):
            yield from _block(f"output_blocks.{index}", f"up_blocks.{level}", layer, attended)
            index += 1
        position = 3 if attended else 1
        yield f"output_blocks.{index - 1}.{position}.conv", f"up_blocks.{level}.upsamplers.0.conv"


def _block(theirs: str, ours: str, layer: int, attended: bool) -> Iterator[tuple[str, str]]:
    yield from _resnet(f"{theirs}.0", ours, layer)
    if attended:
        yield f"{theirs}.1", f"{ours}.attentions.{layer}"
        yield from _temporal(f"{theirs}.2", f"{ours}.temp_attentions.{layer}")


def _temporal(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    yield theirs, ours
    for attention in ("attn1", "attn2"):
        place = f"transformer_blocks.0.{attention}"
        for table in ("relative_position_k", "relative_position_v"):
            yield f"{theirs}.{place}.{table}", f"{ours}.{place}.processor.{table}"


def _resnet(theirs: str, ours: str, layer: int) -> Iterator[tuple[str, str]]:
    yield from resnet(theirs, f"{ours}.resnets.{layer}")
    # so they spell it
    yield f"{theirs}.temopral_conv", f"{ours}.temp_convs.{layer}"
