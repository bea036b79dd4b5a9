"""The families of latent diffusion whose laws are tests, each with a small random model and diffusers' own pipeline."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers import Flux2KleinPipeline, Flux2Pipeline, FluxPipeline, StableDiffusionXLPipeline
from torch import Tensor

from rlr.chain import Chain
from rlr.models import Flux, Flux2, Frozen, Guidance, StableDiffusionXL
from rlr.models.latent import ImageLatentDiffusion
from rlr.samplers import DDIM, Ancestral, FlowSDE, Sampler
from tests.models.random_flux import write_random_flux
from tests.models.random_flux2 import write_random_flux2
from tests.models.random_sdxl import write_random_sdxl

PROMPTS = ["a red circle", "two blue squares on the green background, and more than the sixteen tokens of CLIP"]


@dataclass(frozen=True)
class Family:
    """A family of models.

    Args:
        model: Its class.
        write: Writes a random model into a folder.
        pipeline: Its pipeline in diffusers.
        sampler: Returns the sampler of so many steps, without noise.
        noisy: Returns the same sampler with noise.
        settings: What the random model is built with.
        options: Arguments of the model's class.
        asked: The pipeline's arguments for a scale of true guidance and for the scale that the network reads.
        cases: The scales of true guidance and those that the network reads, 0 if it reads none.
        layers: How many layers of the random model a LoRA adds to by default.
    """

    model: type[ImageLatentDiffusion]
    write: Callable[..., Path]
    pipeline: Any
    sampler: Callable[[int], Sampler]
    noisy: Callable[[int], Sampler]
    asked: Callable[[float, float], dict[str, Any]]
    cases: Sequence[tuple[float, float]]
    layers: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, folder: Path, read: float = 0.0, **options: Any) -> Any:
        """Returns the model of a folder, of 32 x 32 pixels and without trained weights by default."""
        scale = {"guidance": read} if read else {}
        return self.model(str(folder), **{"trainable": Frozen(), "size": 32, **self.options, **scale} | options)

    def by_pipeline(self, pipeline: Any, model: Any, noise: Tensor, scale: float, read: float, steps: int) -> Tensor:
        """Returns the images that diffusers' pipeline makes of the noise of a model."""
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            prompt=PROMPTS,
            latents=model.for_pipeline(noise),
            height=model.size.height,
            width=model.size.width,
            num_inference_steps=steps,
            output_type="pt",
            **self.asked(scale, read),
        ).images

    def open(self, folder: Path) -> Any:
        """Returns diffusers' pipeline of a folder."""
        return self.pipeline.from_pretrained(folder)


def ours(family: Family, model: Any, scale: float, steps: int) -> tuple[Tensor, Tensor]:
    """Returns the images of a model by its deterministic sampler, and their noise."""
    chain = Chain(Guidance(model, scale), family.sampler(steps))
    noise = chain.draw([1, 2])
    with warnings.catch_warnings(action="ignore"):
        return model.decode(chain.sample(chain.encode(PROMPTS), noise).states[0]), noise[-1]


def _flow(steps: int) -> Sampler:
    return FlowSDE(steps, noise_level=0.0)


FAMILIES: dict[str, Family] = {
    "sdxl": Family(
        StableDiffusionXL,
        write_random_sdxl,
        StableDiffusionXLPipeline,
        lambda steps: DDIM(steps, eta=0.0),
        # Euler's last state has no noise, and DDIM then has none in its last step
        lambda steps: Ancestral(steps, variance=1.0),
        lambda scale, read: {"guidance_scale": scale},
        cases=((1.0, 0.0), (5.0, 0.0)),
        layers=8 * 2 * 4,
    ),
    "flux": Family(
        Flux,
        write_random_flux,
        FluxPipeline,
        _flow,
        FlowSDE,
        lambda scale, read: {
            "guidance_scale": read,
            "true_cfg_scale": scale,
            "negative_prompt": ["", ""],
            "max_sequence_length": 32,
        },
        cases=((1.0, 3.5), (1.0, 1.0), (4.0, 3.5)),
        layers=2 * 12 + 2 * 3,
        options={"tokens": 32},
    ),
    "klein": Family(
        Flux2,
        write_random_flux2,
        Flux2KleinPipeline,
        _flow,
        FlowSDE,
        lambda scale, read: {"guidance_scale": scale, "max_sequence_length": 64},
        cases=((1.0, 0.0), (4.0, 0.0)),
        layers=2 * 12 + 2,
        options={"tokens": 64},
    ),
    "dev": Family(
        Flux2,
        write_random_flux2,
        Flux2Pipeline,
        _flow,
        FlowSDE,
        lambda scale, read: {"guidance_scale": read, "max_sequence_length": 280},
        cases=((1.0, 4.0), (1.0, 1.0)),
        layers=2 * 12 + 2,
        settings={"dev": True},
        options={"tokens": 280},
    ),
}
