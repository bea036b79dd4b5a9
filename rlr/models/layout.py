"""The names of weights in files of latent diffusion as its authors write them, and in the modules of diffusers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

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
"""The linear maps that the authors wrote as convolutions of one point, by how many axes of length 1 their weights have."""


@dataclass(frozen=True)
class Layout:
    """A bijection of names, the authors' and those of diffusers.

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


def vae_layout(levels: int, num_res_blocks: int) -> Layout:
    """Returns the names of an autoencoder of so many resolutions and residual blocks each, without their prefix."""
    return Layout(dict(_vae_modules(levels, num_res_blocks)))


def resnet(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    """Yields the names of the children of a residual block of the denoiser."""
    yield from _children(theirs, ours, RESNET)


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
