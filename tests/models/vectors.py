"""Recorded outputs of VideoCrafter's own code, see ``tests/fixtures/videocrafter``."""

import gzip
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlr.models.videocrafter.architecture import Architecture, TextConfig, VAEConfig
from rlr.models.videocrafter.checkpoint import PREFIXES
from rlr.models.videocrafter.network import UNetConfig

FOLDER = Path(__file__).parents[1] / "fixtures" / "videocrafter"


@dataclass(frozen=True)
class Vectors:
    """Tensors by name, and the settings that they were made with."""

    tensors: dict[str, Tensor]
    config: dict[str, Any]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def within(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


@cache
def load(name: str) -> Vectors:
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    described = json.loads(arrays.pop("json").tobytes())
    tensors = unpack(arrays.pop("halves", np.zeros((2, 0), np.uint8)), described["halves"])
    for table, shape in described["config"].get("rows", {}).items():
        tensors[table] = torch.zeros(shape, dtype=torch.float16)
        tensors[table][torch.from_numpy(arrays.pop(f"rows.{table}"))] = tensors.pop(f"values.{table}")
    return Vectors(tensors | {key: torch.from_numpy(array) for key, array in arrays.items()}, described["config"])


def unpack(planes: np.ndarray, shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    values = torch.from_numpy(np.ascontiguousarray(planes.T).view(np.float16).ravel())
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    return {name: part.view(shapes[name]) for name, part in zip(shapes, values.split(sizes), strict=True)}


@cache
def keys() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of the official checkpoints."""
    return json.loads(gzip.decompress((FOLDER / "keys.json.gz").read_bytes()))


def unet_config(settings: dict[str, Any]) -> UNetConfig:
    names = UNetConfig.__dataclass_fields__.keys() - {"norm_groups"}
    known = {name: settings[name] for name in names if name in settings}
    return UNetConfig(**{"fps_cond": False} | known)


def architecture() -> Architecture:
    """That of ``pipeline_v2_tiny``."""
    config = load("pipeline_v2_tiny").config
    vae, text = config["ddconfig"], config["text_config"]
    return Architecture(
        unet=unet_config(config["unet_config"]),
        vae=VAEConfig(vae["ch"], vae["ch_mult"], vae["num_res_blocks"]),
        text=TextConfig(text["vocab_size"], text["width"], text["heads"], text["layers"], text["context_length"]),
        scale_b=config["scale_b"],
        size=(16, 16),
        frames=4,
    )


def write_checkpoint(folder: Path, model: str = "pipeline_v2_tiny", scale: bool = True) -> Path:
    """Writes a whole checkpoint in the official layout, with the denoiser of ``model``, and returns its folder."""
    pipeline, unet = load("pipeline_v2_tiny"), load(model)
    state = pipeline.within("weights.")
    made = architecture() if scale else replace(architecture(), scale_b=None)
    if model != "pipeline_v2_tiny":
        state = {name: weight for name, weight in state.items() if not name.startswith(PREFIXES["unet"])}
        state |= {PREFIXES["unet"] + name: weight for name, weight in unet.within("weights.").items()}
        made = replace(made, unet=unet_config(unet.config["unet_config"]))
    if not scale:
        del state["scale_arr"]
    torch.save({"state_dict": state}, folder / "model.ckpt")
    made.write(folder / "config.json")
    return folder
