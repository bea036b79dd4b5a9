"""The flow transformers with random weights, each beside its own pipeline of diffusers, for the laws that all of them obey."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers import QwenImagePipeline, WanPipeline, ZImagePipeline
from torch import Tensor

from rlr.models import DiffusionModel, Guidance, QwenImage, RescaledGuidance, Wan, ZImage
from rlr.models.latent import LatentDiffusion
from rlr.models.packing import pack
from tests.models.random_qwenimage import write_random_qwenimage
from tests.models.random_wan import write_random_wan
from tests.models.random_zimage import write_random_zimage

PROMPTS = ("a red circle", "two blue squares on the green background, and many more words")
"""Prompts of unequal numbers of tokens."""
TOKENS = 96
"""How many tokens of a prompt are read."""


@dataclass(frozen=True)
class Family:
    """A base model, and the pipeline that it has to agree with.

    Args:
        model: The class of the model.
        pipeline: The class of the pipeline in diffusers.
        write: Writes a folder with random weights.
        guided: Returns the model with the guidance of the pipeline.
        call: Returns the pipeline's arguments for noise and guidance scale; 1 is no guidance.
        sizes: Two sizes, as the model's arguments.
        settings: Further arguments of the model and of the pipeline by name.
        layers: The number of LoRA layers.
    """

    model: type[LatentDiffusion]
    pipeline: Any
    write: Callable[[Path], Path]
    guided: Callable[[DiffusionModel, float], DiffusionModel]
    call: Callable[[Tensor, float], dict[str, Any]]
    sizes: tuple[Mapping[str, Any], Mapping[str, Any]]
    layers: int
    settings: Mapping[str, str] = field(default_factory=dict)

    def build(self, folder: Path, **options: Any) -> Any:
        """Returns the model of a folder, of the first size by default."""
        return self.model(str(folder), **{"tokens": TOKENS, **self.sizes[0]} | options)

    def sample(self, folder: Path, noise: Tensor, scale: float, steps: int, size: Mapping[str, Any]) -> Tensor:
        """Returns the pixels that the pipeline of a folder makes of noise."""
        return self.run(self.pipeline.from_pretrained(folder), noise, scale, steps, size)

    def run(self, pipeline: Any, noise: Tensor, scale: float, steps: int, size: Mapping[str, Any]) -> Tensor:
        """Returns the pixels that a pipeline makes of noise."""
        pipeline.set_progress_bar_config(disable=True)
        height, width = size["size"]
        options = {"height": height, "width": width, "num_inference_steps": steps, "max_sequence_length": TOKENS}
        if "frames" in size:
            options["num_frames"] = size["frames"]
        return pipeline(list(PROMPTS), **options, **self.call(noise, scale), output_type="pt", return_dict=False)[0]


def _qwen(noise: Tensor, scale: float) -> dict[str, Any]:
    negative = {} if scale == 1 else {"negative_prompt": [""] * len(PROMPTS)}
    return {"latents": pack(noise), "true_cfg_scale": scale, **negative}


IMAGES = ({"size": (32, 32)}, {"size": (24, 48)})
VIDEOS = ({"size": (16, 32), "frames": 5}, {"size": (32, 16), "frames": 3})


def _wan(**options: Any) -> Family:
    return Family(
        Wan,
        WanPipeline,
        lambda folder: write_random_wan(folder, **options),
        Guidance,
        lambda noise, scale: {"latents": noise, "guidance_scale": scale},
        ({"size": (32, 32), "frames": 5}, VIDEOS[1] | {"size": (32, 64)}) if "patch" in options else VIDEOS,
        20 * options.get("experts", 1),
    )


FAMILIES = {
    "zimage": Family(
        ZImage,
        ZImagePipeline,
        write_random_zimage,
        Guidance,
        # the pipeline counts its scale from the prompt's own answer
        lambda noise, scale: {"latents": noise, "guidance_scale": scale - 1},
        IMAGES,
        16,
    ),
    "qwen": Family(QwenImage, QwenImagePipeline, write_random_qwenimage, RescaledGuidance, _qwen, IMAGES, 24),
    "wan": _wan(),
    "wan_experts": _wan(experts=2),
    "wan_patches": _wan(patch=2),
}
