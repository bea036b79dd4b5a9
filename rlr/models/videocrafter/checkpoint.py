"""A VideoCrafter's file in its authors' layout: tables of the schedule, denoiser, autoencoder and text tower."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rlr.io.inventory import on_meta, taken
from rlr.io.weights import blank, compare, fill, freeze, map_state, write_state
from rlr.models.adapters import merged
from rlr.models.layout import Layout, vae_layout
from rlr.models.videocrafter.architecture import CONFIG, Architecture
from rlr.models.videocrafter.buffers import read_schedule, write_buffers
from rlr.models.videocrafter.keys import unet_layout
from rlr.models.videocrafter.text import TextTower
from rlr.schedules import DiscreteSchedule

PREFIXES = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text": "cond_stage_model.model."}
"""Where the weights of each part are."""
DEEPSPEED = "_forward_module."
"""Before every name in a file of DeepSpeed's."""
WEIGHTS = "model.safetensors"
"""The file that :func:`export_official` writes."""


Complete = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Returns the weights of an architecture under their names in a file, from those of the file."""


@dataclass(frozen=True)
class Parts:
    """What a file holds.

    Args:
        unet: The denoiser.
        vae: The autoencoder.
        schedule: The noise schedule.
    """

    unet: Any
    vae: Any
    schedule: DiscreteSchedule


def as_written(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights of a file as they are."""
    return state


def load_official(
    path: Path,
    architecture: Architecture,
    dtype: torch.dtype = torch.float32,
    complete: Complete = as_written,
) -> Parts:
    """Returns the parts of a VideoCrafter but its text tower, frozen; the file is checked to hold all weights and no others.

    Args:
        path: A file in its authors' layout, a ``.ckpt`` or ``.safetensors``, of any floating type.
        architecture: Its sizes.
        dtype: The type of the networks.
        complete: What adds to the weights of the file; by default nothing.

    Raises:
        ValueError: If the file holds something else, or another architecture.
    """
    networks = {name: blank(make) for name, make in architecture.makers.items()}
    buffers = write_buffers(architecture)
    if taken() is not None:
        unet, vae = (freeze(on_meta(networks[name]), dtype) for name in ("unet", "vae"))
        return Parts(unet, vae, read_schedule(buffers, architecture))
    state = complete(_read_state(path))
    remedy = f"set the model.ckpt of this very model, or its variant (published sizes, or a {CONFIG} beside the file)"
    blanks = {name: network.state_dict() for name, network in networks.items()}
    compare(official_state(blanks, architecture) | buffers, state, path, "the VideoCrafter that was asked for", remedy)
    layouts = _layouts(architecture)
    unet, vae = (
        fill(networks[name], layouts[name].to_ours(within(state, PREFIXES[name])), dtype) for name in ("unet", "vae")
    )
    tables = {name: state[name].float().clone() for name in buffers}
    return Parts(unet, vae, read_schedule(tables, architecture))


def load_text(path: Path, architecture: Architecture, dtype: torch.dtype = torch.float32) -> TextTower:
    """Returns the text tower of a file that :func:`load_official` has checked, frozen."""
    if taken() is not None:
        return cast(TextTower, freeze(on_meta(blank(architecture.build_text)), dtype))
    tower: TextTower = fill(blank(architecture.build_text), within(_read_state(path), PREFIXES["text"]), dtype)
    return tower


def official_state(states: Mapping[str, Mapping[str, Tensor]], architecture: Architecture) -> dict[str, Tensor]:
    """Returns the weights of ``unet``, ``vae`` and ``text`` under their names in its authors' files."""
    theirs = {part: layout.to_theirs(states[part]) for part, layout in _layouts(architecture).items()}
    return {PREFIXES[part] + name: weight for part, state in theirs.items() for name, weight in state.items()}


def export_official(
    folder: str | Path,
    unet: nn.Module,
    vae: nn.Module,
    text: nn.Module,
    architecture: Architecture,
    dtype: torch.dtype = torch.float16,
    name: str = WEIGHTS,
) -> None:
    """Writes a VideoCrafter in its authors' layout, and beside it a file that states its sizes.

    Args:
        folder: Where to write.
        unet: The denoiser, of ``architecture.build_unet``; a LoRA is added to its weights.
        vae: The autoencoder.
        text: The text tower.
        architecture: Their sizes.
        dtype: The type of the weights; the schedule's tables are float32.
        name: The file: a ``.safetensors``, or a ``.ckpt`` for its authors' programs.
    """
    state = official_state({"unet": merged(unet), "vae": vae.state_dict(), "text": text.state_dict()}, architecture)
    weights = {key: weight.detach().to("cpu", dtype).contiguous() for key, weight in state.items()}
    write_state(Path(folder) / name, weights | write_buffers(architecture))
    architecture.write(Path(folder) / CONFIG)


def _layouts(architecture: Architecture) -> dict[str, Layout]:
    vae = vae_layout(len(architecture.vae.ch_mult), architecture.vae.num_res_blocks)
    return {"unet": unet_layout(architecture.unet), "vae": vae, "text": Layout({})}


def _read_state(path: Path) -> dict[str, Tensor]:
    return {name.removeprefix(DEEPSPEED): weight for name, weight in map_state(path).items()}


def within(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Returns the weights whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): weight for name, weight in state.items() if name.startswith(prefix)}
