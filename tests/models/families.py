"""The families of latent diffusion whose laws are tests, each with a small random model and diffusers' own pipeline."""

import copy
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    ClassifierFreeGuidance,
    CogVideoXPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxPipeline,
    HunyuanVideo15Pipeline,
    LTXPipeline,
    QwenImagePipeline,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    WanPipeline,
    ZImagePipeline,
)
from torch import Tensor, nn

from rlr.chain import Chain
from rlr.models import (
    CogVideoX,
    DiffusionModel,
    Flux,
    Flux2,
    Frozen,
    Guidance,
    HunyuanVideo15,
    LoRA,
    LTXVideo,
    QwenImage,
    RescaledGuidance,
    Size,
    StableDiffusion3,
    StableDiffusionXL,
    TextPlacement,
    Wan,
    ZImage,
)
from rlr.models.latent import LatentDiffusion
from rlr.models.text import PromptEncoder
from rlr.samplers import DDIM, Ancestral, FlowSDE, Sampler

PROMPTS = ("a red circle", "two blue squares on the green background, and more than the sixteen tokens of CLIP")
"""Prompts of unequal numbers of tokens; no list, since some pipelines change the list that they are called with."""
TOKENS = 96
"""How many tokens of a prompt most text encoders read."""
IMAGES = ({"size": (32, 32)}, {"size": (24, 48)})
SIDES = ("tile_sample_min_height", "tile_sample_min_width")
VIDEOS = ({"size": (16, 32), "frames": 5}, {"size": (32, 16), "frames": 3})


def _flow(steps: int) -> Sampler:
    return FlowSDE(steps, noise_level=0.0)


def _scale(scale: float, read: float) -> dict[str, Any]:
    return {"guidance_scale": scale}


@dataclass(frozen=True)
class Family:
    """A base model, and the pipeline that it has to agree with.

    Args:
        model: The class of the model.
        pipeline: The class of the pipeline in diffusers.
        files: The fixture that writes a folder with random weights.
        layers: The number of layers of the random model that a LoRA adds to by default.
        sizes: Two sizes, as the model's arguments.
        settings: What the random model is built with.
        cases: The scales of true guidance and those that the network reads, 0 if it reads none.
        asked: Returns the pipeline's arguments for a pair of scales; a true scale of 1 is no guidance.
        adjust: Prepares the pipeline for a true scale, where that is no argument of its call.
        tokens: How many tokens of a prompt are read; None where the pipeline does not ask.
        rank: Rank and alpha of the LoRA by default.
        guided: Returns the model with the guidance of the pipeline.
        steps: The numbers of steps with which samples are compared, one for each size.
        sampler: Returns the sampler of so many steps, without noise.
        noisy: Returns the same sampler with noise.
        tiles: Arguments that make the autoencoder's tiles small, where it has no configuration of them.
    """

    model: type[LatentDiffusion]
    pipeline: Any
    files: str
    layers: int
    sizes: tuple[Mapping[str, Any], Mapping[str, Any]] = IMAGES
    settings: Mapping[str, Any] = field(default_factory=dict)
    cases: Sequence[tuple[float, float]] = ((1.0, 0.0), (4.0, 0.0))
    asked: Callable[[float, float], dict[str, Any]] = _scale
    adjust: Callable[[Any, float], None] = lambda pipeline, scale: None
    tokens: int | None = TOKENS
    rank: tuple[int, float] = (64, 128)
    guided: Callable[[DiffusionModel, float], DiffusionModel] = Guidance
    steps: tuple[int, int] = (2, 3)
    sampler: Callable[[int], Sampler] = _flow
    noisy: Callable[[int], Sampler] = FlowSDE
    tiles: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_video(self) -> bool:
        return "frames" in self.sizes[0]


class Borrowed(TextPlacement):
    """The text encoder of another model, which is not loaded again."""

    def __init__(self, lender: PromptEncoder) -> None:
        super().__init__()
        self.lender = lender

    def place(self, owner: PromptEncoder, load: Callable[[], nn.Module]) -> None:
        pass

    def opened(self, owner: PromptEncoder) -> Any:
        return self.lender.opened()


class Member:
    """The random model of a family, and what tests share: they leave it as it is."""

    def __init__(self, family: Family, folder: Path) -> None:
        self.family = family
        self.folder = folder
        self.ours = cache(self._ours)

    def build(self, **options: Any) -> Any:
        """Returns a new model, of the first size, without trained weights and with the text encoder of :attr:`base` by default."""
        family = self.family
        tokens = {"tokens": family.tokens} if family.tokens else {}
        text = {} if "text" in options else {"text": Borrowed(self.base.text)}
        return family.model(str(self.folder), **{"trainable": Frozen(), **family.sizes[0], **tokens, **text} | options)

    @cached_property
    def base(self) -> Any:
        """The model without trained weights, with its text encoder."""
        return self.build(text=None)

    @cached_property
    def pipeline(self) -> Any:
        """diffusers' pipeline of the folder."""
        return self.open()

    def open(self, folder: Path | None = None) -> Any:
        """Returns a new pipeline of a folder, by default the member's."""
        pipeline = self.family.pipeline.from_pretrained(folder or self.folder)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def copied(self, *parts: str) -> Any:
        """Returns a pipeline with copies of some parts of :attr:`pipeline`."""
        pipeline = copy.copy(self.pipeline)
        pipeline.register_modules(**{part: copy.deepcopy(getattr(self.pipeline, part)) for part in parts})
        return pipeline

    @contextmanager
    def lora(self, size: float = 0.2) -> Iterator[Any]:
        """Within, the model has a LoRA whose weights are moved by normal numbers times ``size``."""
        model, generator = self._lora, torch.Generator().manual_seed(1)
        first = {name: weight.detach().clone() for name, weight in model.trainable.items()}
        for weight in model.trainable.values():
            weight.data += size * torch.randn(weight.shape, generator=generator)
        try:
            yield model
        finally:
            for name, weight in model.trainable.items():
                weight.data, weight.grad = first[name], None

    @cached_property
    def _lora(self) -> Any:
        return self.build(trainable=LoRA(2, alpha=3.0))

    def sample(
        self, model: Any, scale: float, read: float, steps: int, size: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Returns the pixels of a model by its deterministic sampler, and their noise."""
        with changed(model, size, read):
            chain = Chain(self.family.guided(model, scale), self.family.sampler(steps))
            noise = chain.draw([1, 2])
            with torch.no_grad(), warnings.catch_warnings(action="ignore"):
                return model.decode(chain.sample(chain.encode(PROMPTS), noise).states[0]), noise[-1]

    def _ours(self, scale: float, read: float, steps: int, size: int = 0) -> tuple[Tensor, Tensor]:
        return self.sample(self.base, scale, read, steps, self.family.sizes[size])

    def theirs(
        self, noise: Tensor, scale: float, read: float, steps: int, size: Mapping[str, Any], pipeline: Any = None
    ) -> Tensor:
        """Returns the pixels that diffusers' pipeline makes of noise."""
        height, width = size["size"]
        options = {"height": height, "width": width, "num_inference_steps": steps, **self.family.asked(scale, read)}
        if "frames" in size:
            options["num_frames"] = size["frames"]
        if self.family.tokens:
            options["max_sequence_length"] = self.family.tokens
        with changed(self.base, size):
            latents, run = self.base.for_pipeline(noise), pipeline or self.pipeline
        self.family.adjust(run, scale)
        return run(prompt=list(PROMPTS), latents=latents, output_type="pt", return_dict=False, **options)[0]


@contextmanager
def changed(model: Any, size: Mapping[str, Any], read: float = 0.0) -> Iterator[None]:
    """Within, a model has samples of another size, and its network reads another guidance scale unless that is 0."""
    before, guidance = model.size, getattr(model, "guidance", None)
    model.size = Size(*size["size"], size.get("frames"), before.fps)
    model.guidance = read or guidance
    try:
        yield
    finally:
        model.size, model.guidance = before, guidance


def covering(rows: Sequence[str], columns: Sequence[str], wanted: Collection[tuple[str, str]] = ()) -> list[Any]:
    """Returns all pairs; those that are neither wanted nor needed to have every row and every column once are marked slow."""
    return [
        pytest.param(
            row,
            column,
            marks=() if i % len(columns) == j % len(rows) or (row, column) in wanted else pytest.mark.slow,
        )
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
    ]


def _wan(layers: int = 20, **settings: Any) -> Family:
    sizes = ({"size": (32, 32), "frames": 5}, {"size": (32, 64), "frames": 3}) if "patch" in settings else VIDEOS
    tiles = dict.fromkeys(SIDES, 32) | {"tile_sample_stride_height": 24, "tile_sample_stride_width": 24}
    return Family(Wan, WanPipeline, "random_wan", layers, sizes, settings, tiles=tiles)


def _cogvideox(**settings: Any) -> Family:
    return Family(
        CogVideoX,
        CogVideoXPipeline,
        "random_cogvideox",
        layers=8,
        sizes=({"size": (16, 32), "frames": 5}, {"size": (32, 16), "frames": 9}),
        settings=settings,
        asked=lambda scale, read: {"guidance_scale": scale, "max_sequence_length": TOKENS},
        tokens=None,
        # the pipeline's scheduler is at the grid's levels for numbers of steps that divide 1000
        steps=(2, 4),
        sampler=lambda steps: DDIM(steps, eta=0.0),
        noisy=lambda steps: Ancestral(steps, variance=1.0),
        tiles=dict.fromkeys(SIDES, 32) | {"tile_overlap_factor_height": 0.25, "tile_overlap_factor_width": 0.25},
    )


def _guider(pipeline: Any, scale: float) -> None:
    pipeline.guider = ClassifierFreeGuidance(guidance_scale=scale)
    # fewer tokens of padding, which are masked
    pipeline.tokenizer_max_length, pipeline.vision_num_semantic_tokens = 300, 2
    # else it decodes no batch of several videos
    pipeline.vae.enable_slicing()


def _true_scale(scale: float, read: float) -> dict[str, Any]:
    return {"true_cfg_scale": scale, **({} if scale == 1 else {"negative_prompt": [""] * len(PROMPTS)})}


FAMILIES: dict[str, Family] = {
    "sdxl": Family(
        StableDiffusionXL,
        StableDiffusionXLPipeline,
        "random_sdxl",
        layers=4 * 2 * 4,
        tokens=None,
        rank=(4, 4),
        sampler=lambda steps: DDIM(steps, eta=0.0),
        # Euler's last state has no noise, and DDIM then has none in its last step
        noisy=lambda steps: Ancestral(steps, variance=1.0),
    ),
    "sd3": Family(StableDiffusion3, StableDiffusion3Pipeline, "random_sd3", layers=15, tokens=32, rank=(32, 64)),
    "flux": Family(
        Flux,
        FluxPipeline,
        "random_flux",
        layers=2 * 12 + 2 * 3,
        cases=((1.0, 3.5), (1.0, 1.0), (4.0, 3.5)),
        asked=lambda scale, read: {"guidance_scale": read, **_true_scale(scale, read)},
        tokens=32,
    ),
    "klein": Family(Flux2, Flux2KleinPipeline, "random_flux2", layers=2 * 12 + 2, tokens=64),
    "dev": Family(
        Flux2,
        Flux2Pipeline,
        "random_flux2",
        layers=2 * 12 + 2,
        settings={"dev": True},
        cases=((1.0, 4.0), (1.0, 1.0)),
        asked=lambda scale, read: {"guidance_scale": read},
        tokens=280,
    ),
    "zimage": Family(
        ZImage,
        ZImagePipeline,
        "random_zimage",
        layers=16,
        # the pipeline counts its scale from the prompt's own answer
        asked=lambda scale, read: {"guidance_scale": scale - 1},
    ),
    "qwen": Family(
        QwenImage,
        QwenImagePipeline,
        "random_qwenimage",
        layers=24,
        asked=_true_scale,
        guided=RescaledGuidance,
        tiles=_wan().tiles,
    ),
    "wan": _wan(),
    "wan_experts": _wan(layers=2 * 20, experts=2),
    "wan_patches": _wan(patch=2),
    "cogvideox": _cogvideox(),
    "cogvideox15": _cogvideox(rotary=True, patches=2, snr_shift_scale=1.0),
    "ltx": Family(
        LTXVideo,
        LTXPipeline,
        "random_ltx",
        layers=20,
        sizes=({"size": (32, 32), "frames": 5}, {"size": (32, 64), "frames": 3}),
        tiles=_wan().tiles,
    ),
    "hunyuan15": Family(
        HunyuanVideo15,
        HunyuanVideo15Pipeline,
        "random_hunyuan15",
        layers=16 + 4,
        sizes=VIDEOS,
        asked=lambda scale, read: {},
        adjust=_guider,
        tokens=None,
        tiles=dict.fromkeys(SIDES, 32) | {"tile_latent_min_height": 8, "tile_latent_min_width": 8},
    ),
}
FIRST = [
    name for name, family in FAMILIES.items() if next(f for f in FAMILIES.values() if f.model is family.model) is family
]
"""The first family of each class of models."""
