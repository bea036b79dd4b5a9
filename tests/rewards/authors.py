"""The small rewards whose scores the authors' programs computed, written as files in their authors' formats."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rlr.rewards.networks.aesthetic import Aesthetic
from rlr.rewards.networks.hpsv2 import HPSv2
from rlr.rewards.networks.imagereward import ImageReward
from tests.rewards.vectors import FIXTURES, facts, tensors

_KEPT = TemporaryDirectory(prefix="rlr-rewards-")


def weights(case: str, prefix: str = "") -> dict[str, Tensor]:
    """The state dict under the authors' names."""
    prefix = f"weights.{prefix}"
    return {key.removeprefix(prefix): value for key, value in tensors(case).items() if key.startswith(prefix)}


def picture(pixels: Tensor) -> Tensor:
    """An image file as pixels in [0, 1], with shape (1, 3, H, W); a gray one has three like channels."""
    pixels = pixels[..., None].expand(*pixels.shape, 3) if pixels.ndim == 2 else pixels
    return pixels.permute(2, 0, 1)[None] / 255


def to01(x: Tensor) -> Tensor:
    """From the decoder's [-1, 1] to [0, 1]."""
    return (x / 2 + 0.5).clamp(0, 1)


def pictures(vectors: Mapping[str, Any], prefix: str = "inputs.image_") -> list[Tensor]:
    """The image files of a case."""
    return [picture(vectors[key]) for key in sorted(vectors) if key.startswith(prefix)]


def matrix(reward: Any, files: list[Tensor], prompts: list[str]) -> Tensor:
    """The scores [prompt, image]."""
    return torch.stack([reward(file.expand(len(prompts), -1, -1, -1), prompts) for file in files], 1)


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
    state = weights("hpsv2_tiny")
    ids, rows = (state.pop(f"token_embedding.weight#{part}") for part in ("ids", "rows"))
    state["token_embedding.weight"] = torch.zeros(49408, rows.shape[1]).index_copy(0, ids, rows)
    torch.save({"state_dict": state, "epoch": 1}, folder / "tiny_hps.pt")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": facts("hpsv2_tiny")["model_cfg"]}))
    return folder / "tiny_hps.pt", f"local-dir:{folder}"


def hpsv2(**options: Any) -> HPSv2:
    path, architecture = hpsv2_files()
    return HPSv2(str(path), architecture=architecture, **options)


@cache
def aes_files() -> tuple[Path, Path]:
    """A CLIP model in the layout of transformers, and a head in a file of torch.save."""
    folder = Path(_KEPT.name) / "aes"
    folder.mkdir()
    width = facts("aes_tiny")["projection_dim"]
    vision = {**facts("aes_tiny")["vision_config"], "projection_dim": width}
    config = {"model_type": "clip", "vision_config": vision, "projection_dim": width}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights("aes_tiny", "clip."), folder / "model.safetensors", {"format": "pt"})
    torch.save(weights("aes_tiny", "mlp."), folder / "head.pth")
    return folder, folder / "head.pth"


def aes(**options: Any) -> Aesthetic:
    folder, head = aes_files()
    return Aesthetic(str(folder), str(head), **options)


@cache
def imagereward_files() -> tuple[Path, Path]:
    """A bare state dict in a file of torch.save, and the architecture."""
    folder = Path(_KEPT.name) / "imagereward"
    folder.mkdir()
    torch.save(weights("imagereward_tiny"), folder / "ImageReward.pt")
    (folder / "architecture.json").write_text(json.dumps(blip(facts("imagereward_tiny"))))
    return folder / "ImageReward.pt", folder / "architecture.json"


def blip(case: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The authors' two configurations under the names of transformers."""
    vit, med = case["vit"], case["med_config"]
    vision = {
        "hidden_size": vit["embed_dim"],
        "intermediate_size": 4 * vit["embed_dim"],
        "num_hidden_layers": vit["depth"],
        "num_attention_heads": vit["num_heads"],
        "image_size": vit["img_size"],
        "patch_size": vit["patch_size"],
        "layer_norm_eps": case["vit_layer_norm_eps"],
        "hidden_act": "gelu",
    }
    same = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("max_position_embeddings", "layer_norm_eps", "hidden_act"),
    )
    text = {key: med[key] for key in same} | {"encoder_hidden_size": vit["embed_dim"], "is_decoder": True}
    return {"vision_config": vision, "text_config": text}


def imagereward(**options: Any) -> ImageReward:
    path, architecture = imagereward_files()
    return ImageReward(str(path), str(FIXTURES / "imagereward_tokenizer"), str(architecture), **options)
