"""The demo of images."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from rlr.evaluation.images import to_image
from rlr.toy.demo.world import Words, World
from rlr.toy.world.caption import parse
from rlr.toy.world.checker import check
from rlr.toy.world.prompts import held_out_prompts


class Images(World):
    """Images of the built-in world."""

    labels: ClassVar[Mapping[str, str]] = {
        "reward": "reward",
        "all": "exact check: all correct",
        "novel": "… of color–shape pairs never trained on",
        "count": "… count",
        "color": "… colors",
        "shape": "… shapes",
        "binding": "… color with shape",
        "place": "… position or relation",
        "background": "… background",
        "diversity": "diversity",
    }
    tiles = ("all", "reward", "diversity")
    words = Words(
        title="A diffusion model before and after alignment",
        check="a program that reads the image by rules",
        sheet="not chosen; same noise on both sides; ✓ by the exact check",
        reading=(
            "Differences of shares are in percentage points. The interval is a percentile bootstrap over prompts (10,000 "
            "resamples) of the paired difference; it covers the choice of prompts and noises, not that of the training "
            "seed. Diversity is the mean distance between two samples of one prompt in average colors on grids of 1 to 8 "
            "cells; a model that collapses to one image per prompt has 0."
        ),
        method=(
            "The base is {base}. {updates} of {method} changed its trained weights so that the reward, {reward}, goes up on "
            "training prompts. The exact check takes no part in training: it is a program that finds the things in an image "
            "and compares them with the prompt."
        ),
        limits=(
            "This shows that the gradient does what it says, on a toy world of colored shapes at 32 × 32 pixels. It says "
            "nothing about natural images, and one run has one training seed."
        ),
        bases={
            "Tiny": "a small latent diffusion model in Stable Diffusion's own format that ships with the library and was trained "
            "from scratch on captioned scenes"
        },
        rewards={"TinyPickScore": "a small CLIP in PickScore's format", "TinyHPSv2": "a small CLIP in HPSv2's format"},
    )

    def captions(self, number: int, seed: int) -> list[str]:
        return held_out_prompts(number, seed)

    def check(self, pixels: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The claims of :func:`rlr.toy.world.checker.check`; ``novel`` repeats ``all`` for pairs never trained on."""
        specs = [parse(prompt) for prompt in prompts]
        checks = check(pixels, specs)
        new = torch.tensor([spec.novel for spec in specs])
        return {**checks, "novel": checks["all"].where(new, torch.nan)}

    def still(self, pixels: Tensor) -> Image.Image:
        return to_image(pixels)
