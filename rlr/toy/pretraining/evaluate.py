"""Measures the built-in world's models: ``python -m rlr.toy.pretraining.evaluate [--prompts 500] [--json FILE]``.

Prints, for held-out captions, the share of true claims on real renders (the check's own error), on the autoencoder's
reconstructions of them (the ceiling of any sample) and on samples, these also for novel pairs and for each kind of
caption; then how often each learned reward prefers a caption to one with a single claim altered.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from rlr.io.atomic import write_whole
from rlr.rewards import Reward
from rlr.toy.data.scenes import draw_pictures
from rlr.toy.rewards import TinyHPSv2, TinyPickScore
from rlr.toy.world.caption import KINDS, Spec, altered, parse
from rlr.toy.world.checker import CLAIMS, accuracy, check
from rlr.toy.world.prompts import held_out_prompts

ASSETS = Path(__file__).parents[1] / "assets"
ALTERABLE = ("count", "colour", "shape", "place", "background")
Table = dict[str, dict[str, float]]


@torch.no_grad()
def sample(
    pipeline: Any,
    captions: Sequence[str],
    seed: int = 0,
    steps: int = 20,
    guidance: float = 4.0,
    batch: int = 50,
) -> Tensor:
    """One image for each caption by DDIM, in [0, 1], (N, 3, 32, 32); the noise depends on ``seed`` and position."""
    pipeline.set_progress_bar_config(disable=True)
    size = pipeline.unet.config.sample_size
    latents = torch.randn(len(captions), 4, size, size, generator=torch.Generator().manual_seed(seed))
    chunks = []
    for i in range(0, len(captions), batch):
        part = slice(i, i + batch)
        chunks.append(
            pipeline(
                list(captions[part]),
                latents=latents[part].to(pipeline.unet.dtype),
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="pt",
            ).images
        )
    return torch.cat(chunks)


@torch.no_grad()
def reconstruct(pipeline: Any, pixels: Tensor) -> Tensor:
    """Images in [0, 1] through the autoencoder and back, (N, 3, 32, 32)."""
    parts = [pipeline.vae.encode(part * 2 - 1).latent_dist.mode() for part in pixels.split(100)]
    return torch.cat([pipeline.vae.decode(part).sample for part in parts]).div(2).add(0.5).clamp(0, 1)


def measure(pixels: dict[str, Tensor], specs: Sequence[Spec]) -> Table:
    """Accuracy of every claim for each row of images; samples are also split by novelty and by kind."""
    table = {name: accuracy(check(images, specs)) for name, images in pixels.items()}
    novel = torch.tensor([spec.novel for spec in specs])
    splits = {"samples, novel pairs": novel, "samples, known pairs": ~novel}
    for kind in KINDS:
        splits[f"samples, {kind}"] = torch.tensor([spec.kind == kind for spec in specs])
    for name, chosen in splits.items():
        some = [spec for spec, keep in zip(specs, chosen.tolist(), strict=True) if keep]
        table[name] = accuracy(check(pixels["samples"][chosen], some))
    return table


@torch.no_grad()
def preference(reward: Reward, pixels: Tensor, specs: Sequence[Spec]) -> dict[str, float]:
    """How often a reward gives images in [0, 1] of ``specs`` more for their caption than for an altered one."""
    own = reward(pixels, [spec.caption for spec in specs])
    others = [altered(spec, np.random.default_rng(k)) for k, spec in enumerate(specs)]
    out = {}
    for claim in ALTERABLE:
        index = [k for k, other in enumerate(others) if claim in other]
        other = reward(pixels[index], [others[k][claim].caption for k in index])
        out[claim] = float((own[index] > other).float().mean())
    return out


def evaluate(model: Path, rewards: Sequence[Reward], prompts: int, seed: int) -> dict[str, Any]:
    """All numbers of the model card: the tables ``check`` and, for each reward by its label, ``preference``."""
    captions = held_out_prompts(prompts, seed)
    specs = [parse(caption) for caption in captions]
    pipeline: Any = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, torch_dtype=torch.float32)
    real = draw_pictures(captions, seed).float() / 255
    pixels = {
        "real renders": real,
        "reconstructions": reconstruct(pipeline, real),
        "samples": sample(pipeline, captions, seed),
    }
    psnr = float(-10 * (pixels["reconstructions"] - real).square().mean().log10())
    preferences = {reward.label: preferences_of(reward, pixels, specs) for reward in rewards}
    facts = {"prompts": prompts, "seed": seed, "psnr": psnr}
    return {**facts, "check": measure(pixels, specs), "preference": preferences}


def preferences_of(reward: Reward, pixels: dict[str, Tensor], specs: Sequence[Spec]) -> Table:
    """:func:`preference` on each row of images; of samples only the right ones, for which it is known."""
    right = check(pixels["samples"], specs)["all"] == 1
    kept = [spec for spec, keep in zip(specs, right.tolist(), strict=True) if keep]
    return {
        "real renders": preference(reward, pixels["real renders"], specs),
        "reconstructions": preference(reward, pixels["reconstructions"], specs),
        "right samples": preference(reward, pixels["samples"][right], kept),
    }


def as_text(title: str, table: Table, columns: Sequence[str]) -> str:
    """The table in Markdown, in percent."""
    lines = [f"| {title} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in table.items():
        cells = ["–" if np.isnan(row[column]) else f"{100 * row[column]:.1f}" for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(args: list[str] | None = None) -> None:
    """Reads the command line, measures, prints the tables and writes the JSON file if one is named."""
    parser = argparse.ArgumentParser(prog="python -m rlr.toy.pretraining.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=ASSETS / "tiny")
    parser.add_argument("--no-rewards", dest="rewards", action="store_false", help="measure the model alone")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=777)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(args)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    rewards = [TinyPickScore(), TinyHPSv2()] if options.rewards else []
    result = evaluate(options.model, rewards, options.prompts, options.seed)
    sys.stdout.write(as_text("exact check, %", result["check"], CLAIMS))
    for label, table in result["preference"].items():
        sys.stdout.write("\n" + as_text(f"{label} prefers, %", table, ALTERABLE))
    if options.json:
        write_whole(options.json, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
