"""The names of weights in its authors' files, and in the modules of diffusers that compute the same."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from rlr.models.videocrafter.network import UNetConfig

RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
"""The children of a residual block of the denoiser."""

ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
"""The children of the autoencoder's attention."""

POINTWISE = {
    **{f"init_attn.0.{name}.weight": 1 for name in ("proj_in", "proj_out")},
    **{
        f"{half}.mid.attn_1.{name}.weight": 2 for half in ("encoder", "decoder") for name in ["q", "k", "v", "proj_out"]
    },
}
"""The linear maps that its authors wrote as convolutions of one point, by how many axes of length 1 their weights have."""


@dataclass(frozen=True)
class Layout:
    """A bijection of names, its authors' and ours.

    Args:
        modules: Our name of a module by theirs; what lies within one keeps its name.
    """

    modules: Mapping[str, str]
    _ours: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ours", {ours: theirs for theirs, ours in self.modules.items()})

    def to_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the weights of its authors' network for ours; they share memory."""
        linear = {name: w.flatten(-1 - POINTWISE[name]) if name in POINTWISE else w for name, w in state.items()}
        return {_rename(name, self.modules): weight for name, weight in linear.items()}

    def to_theirs(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the weights of our network for its authors'; they share memory."""
        named = {_rename(name, self._ours): weight for name, weight in state.items()}
        return {name: w.view(*w.shape, *[1] * POINTWISE[name]) if name in POINTWISE else w for name, w in named.items()}


def unet_layout(config: UNetConfig) -> Layout:
    """Returns the names of a denoiser, its authors' without their prefix."""
    return Layout(dict(_unet_modules(config)))


def vae_layout(levels: int, num_res_blocks: int) -> Layout:
    """Returns the names of an autoencoder of so many resolutions and residual blocks each, without their prefix."""
    return Layout(dict(_vae_modules(levels, num_res_blocks)))


def _unet_modules(config: UNetConfig) -> Iterator[tuple[str, str]]:
    time = "time_embedding.time" if config.fps_cond else "time_embedding"
    for theirs, ours in (("time_embed", time), ("fps_embedding", "time_embedding.fps")):
        yield from ((f"{theirs}.0", f"{ours}.linear_1"), (f"{theirs}.2", f"{ours}.linear_2"))
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
    yield from _children(theirs, f"{ours}.resnets.{layer}", RESNET)
    # so they spell it
    yield f"{theirs}.temopral_conv", f"{ours}.temp_convs.{layer}"


def _vae_modules(levels: int, num_res_blocks: int) -> Iterator[tuple[str, str]]:
    for half, way, turns in (("encoder", "down", range(levels)), ("decoder", "up", range(levels)[::-1])):
        yield from _ends(half)
        for ours, theirs in enumerate(turns):
            names = f"{half}.{way}.{theirs}", f"{half}.{way}_blocks.{ours}"
            yield from _vae_level(*names, blocks=num_res_blocks + (way == "up"))
            yield f"{names[0]}.{way}sample.conv", f"{names[1]}.{way}samplers.0.conv"


def _ends(half: str) -> Iterator[tuple[str, str]]:
    yield f"{half}.norm_out", f"{half}.conv_norm_out"
    for theirs, ours in (("block_1", "resnets.0"), ("block_2", "resnets.1")):
        yield f"{half}.mid.{theirs}", f"{half}.mid_block.{ours}"
    yield from _children(f"{half}.mid.attn_1", f"{half}.mid_block.attentions.0", ATTENTION)


def _vae_level(theirs: str, ours: str, blocks: int) -> Iterator[tuple[str, str]]:
    for k in range(blocks):
        yield f"{theirs}.block.{k}", f"{ours}.resnets.{k}"
        yield f"{theirs}.block.{k}.nin_shortcut", f"{ours}.resnets.{k}.conv_shortcut"


def _children(theirs: str, ours: str, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, child in names.items():
        yield f"{theirs}.{name}", f"{ours}.{child}"


def _rename(name: str, modules: Mapping[str, str]) -> str:
    """Replaces the longest known beginning; a name of which none is known stays as it is."""
    parts: Sequence[str] = name.split(".")
    for count in range(len(parts), 0, -1):
        module = modules.get(".".join(parts[:count]))
        if module is not None:
            return ".".join([module, *parts[count:]])
    return name
