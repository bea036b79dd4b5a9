"""The small rewards whose scores the authors' programs computed, written as files in their authors' formats."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlr.rewards.aesthetic import Aesthetic
from rlr.rewards.hpsv2 import HPSv2
from rlr.rewards.imagereward import ImageReward

FIXTURES = Path(__file__).parents[1] / "fixtures" / "rewards"
_KEPT = TemporaryDirectory(prefix="rlr-rewards-")


@cache
def tensors(name: str) -> dict[str, Tensor]:
    return load_file(FIXTURES / f"{name}.safetensors")


@cache
def facts(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def weights(name: str, prefix: str = "") -> dict[str, Tensor]:
    """The state dict under the authors' names."""
    prefix = f"weights.{prefix}"
    return {key.removeprefix(prefix): value for key, value in tensors(name).items() if key.startswith(prefix)}


def picture(name: str, i: int) -> Tensor:
    """Picture i as pixels in [0, 1], with shape (1, 3, H, W); a grey one has three like channels."""
    pixels = tensors(name)[f"inputs.image_{i}"]
    pixels = pixels[..., None].expand(*pixels.shape, 3) if pixels.ndim == 2 else pixels
    return pixels.permute(2, 0, 1)[None] / 255


def to01(x: Tensor) -> Tensor:
    """From the decoder's [-1, 1] to [0, 1]."""
    return (x / 2 + 0.5).clamp(0, 1)


def matrix(reward: Any, name: str, prompts: list[str], pictures: int = 5) -> Tensor:
    """The scores [prompt, picture]."""
    n = len(prompts)
    columns = [reward(picture(name, i).expand(n, -1, -1, -1), prompts) for i in range(pictures)]
    return torch.stack(columns, 1)


def gradient(reward: Any, x: Tensor, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """The scores of pixels in [-1, 1], and the gradient of their sum there."""
    x = x.clone().requires_grad_()
    scores = reward(to01(x), prompts)
    return scores.detach(), torch.autograd.grad(scores.sum(), x)[0]


def assert_gradient(found: Tensor, expected: Tensor, share: float = 2e-5) -> None:
    """No entry is off by more than this share of the largest."""
    assert (found - expected).abs().max() < share * expected.abs().max()


@cache
def hpsv2_files() -> tuple[Path, str]:
    """The weights, ``{"state_dict": ...}`` in a file of torch.save, and open_clip's name of the architecture."""
    folder = Path(_KEPT.name) / "hpsv2"
    folder.mkdir()
    state = weights("hpsv2")
    ids, rows = (state.pop(f"token_embedding.weight#{part}") for part in ("ids", "rows"))
    state["token_embedding.weight"] = torch.zeros(49408, rows.shape[1]).index_copy(0, ids, rows)
    torch.save({"state_dict": state, "epoch": 1}, folder / "tiny_hps.pt")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": facts("hpsv2")["model_cfg"]}))
    return folder / "tiny_hps.pt", f"local-dir:{folder}"


def hpsv2(**options: Any) -> HPSv2:
    path, architecture = hpsv2_files()
    return HPSv2(str(path), architecture=architecture, **options)


@cache
def aes_files() -> tuple[Path, Path]:
    """A CLIP model in the layout of transformers, and a head in a file of torch.save."""
    folder = Path(_KEPT.name) / "aes"
    folder.mkdir()
    config = {key: facts("aes")[key] for key in ("vision_config", "projection_dim")}
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", **config}))
    save_file(weights("aes", "clip."), folder / "model.safetensors", {"format": "pt"})
    torch.save(weights("aes", "mlp."), folder / "head.pth")
    return folder, folder / "head.pth"


def aes(**options: Any) -> Aesthetic:
    folder, head = aes_files()
    return Aesthetic(str(folder), str(head), **options)


@cache
def imagereward_files() -> tuple[Path, Path]:
    """A bare state dict in a file of torch.save, and the architecture."""
    folder = Path(_KEPT.name) / "imagereward"
    folder.mkdir()
    torch.save(weights("imagereward"), folder / "ImageReward.pt")
    return folder / "ImageReward.pt", FIXTURES / "imagereward.json"


def imagereward(**options: Any) -> ImageReward:
    path, architecture = imagereward_files()
    return ImageReward(str(path), str(FIXTURES / "imagereward_tokenizer"), str(architecture), **options)
