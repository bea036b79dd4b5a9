"""Measures the built-in world's models: ``python -m rlr.toy.pretraining.evaluate [--prompts 500] [--file FILE]``.

Prints, for held-out captions, the share of true claims on real renders (the check's own error), on the autoencoder's
reconstructions of them (the ceiling of any sample) and on samples, these also for novel pairs and for each kind of
caption; then how often each learned reward prefers a caption to one with a single claim altered.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from torch import Tensor

from rlr.chain import Chain
from rlr.evaluation.report import Table, say, written
from rlr.evaluation.samples import SampleSet
from rlr.io.json_file import write_json
from rlr.models import Frozen, Guidance, StableDiffusion
from rlr.rewards import Reward
from rlr.samplers import DDIM
from rlr.toy.data.scenes import draw_pictures
from rlr.toy.models import Tiny
from rlr.toy.rewards import TinyHPSv2, TinyPickScore
from rlr.toy.world.caption import KINDS, Spec, altered, parse
from rlr.toy.world.checker import CLAIMS, accuracy, check
from rlr.toy.world.prompts import held_out_prompts

ASSETS = Path(__file__).parents[1] / "assets"
ALTERABLE = ("count", "color", "shape", "place", "background")
BATCH = 50
Shares = dict[str, dict[str, float]]


def sample(chain: Chain, captions: Sequence[str], seed: int = 0) -> Tensor:
    """One image or video for each caption, in [0, 1], (N, *), on the noises of an evaluation."""
    return torch.cat([batch.pixels for batch in SampleSet(captions, seed=seed, batch_size=BATCH).batches(chain)])


@torch.no_grad()
def reconstruct(model: StableDiffusion, pixels: Tensor) -> Tensor:
    """Images in [0, 1] through the autoencoder and back, (N, 3, 32, 32)."""
    vae: Any = model.vae
    parts = [vae.encode(part * 2 - 1).latent_dist.mode() for part in pixels.split(BATCH)]
    return torch.cat([vae.decode(part).sample for part in parts]).div(2).add(0.5).clamp(0, 1)


def measure(pixels: dict[str, Tensor], specs: Sequence[Spec]) -> Shares:
    """Accuracy of every claim for each row of images; samples are also split by novelty and by kind."""
    shares = {name: accuracy(check(images, specs)) for name, images in pixels.items()}
    novel = torch.tensor([spec.novel for spec in specs])
    splits = {"samples, novel pairs": novel, "samples, known pairs": ~novel}
    for kind in KINDS:
        splits[f"samples, {kind}"] = torch.tensor([spec.kind == kind for spec in specs])
    for name, chosen in splits.items():
        some = [spec for spec, keep in zip(specs, chosen.tolist(), strict=True) if keep]
        shares[name] = accuracy(check(pixels["samples"][chosen], some))
    return shares


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
    base = Tiny(str(model), trainable=Frozen())
    real = draw_pictures(captions, seed).float() / 255
    pixels = {
        "real renders": real,
        "reconstructions": reconstruct(base, real),
        "samples": sample(Chain(Guidance(base, 4.0), DDIM(20, eta=0.0)), captions, seed),
    }
    psnr = float(-10 * (pixels["reconstructions"] - real).square().mean().log10())
    preferences = {reward.label: preferences_of(reward, pixels, specs) for reward in rewards}
    facts = {"prompts": prompts, "seed": seed, "psnr": psnr}
    return {**facts, "check": measure(pixels, specs), "preference": preferences}


def preferences_of(reward: Reward, pixels: dict[str, Tensor], specs: Sequence[Spec]) -> Shares:
    """:func:`preference` on each row of images; of samples only the right ones, for which it is known."""
    right = check(pixels["samples"], specs)["all"] == 1
    kept = [spec for spec, keep in zip(specs, right.tolist(), strict=True) if keep]
    return {
        "real renders": preference(reward, pixels["real renders"], specs),
        "reconstructions": preference(reward, pixels["reconstructions"], specs),
        "right samples": preference(reward, pixels["samples"][right], kept),
    }


def table(title: str, shares: Shares, columns: Sequence[str]) -> str:
    """Returns shares in percent as a table in Markdown."""
    rows = [(name, *(written(100 * row[column], 1) for column in columns)) for name, row in shares.items()]
    return Table(title, (title, *columns), rows).markdown()


def write(result: dict[str, Any], path: str | None) -> None:
    """Writes the numbers of a card to a file, if one is named."""
    if path:
        write_json(Path(path), result)


def card(
    model: Path = ASSETS / "tiny", rewards: bool = True, prompts: int = 500, seed: int = 777, file: str | None = None
) -> None:
    """Measures a model of images and the learned rewards, prints the tables, and writes the numbers to a file.

    Args:
        model: A Stable Diffusion folder of images of the built-in world's size.
        rewards: Whether to measure the rewards, too.
        prompts: The number of held-out captions.
        seed: The seed of captions and noise.
        file: The JSON file of the numbers.
    """
    result = evaluate(model, [TinyPickScore(), TinyHPSv2()] if rewards else [], prompts, seed)
    say(table("exact check, %", result["check"], CLAIMS))
    for label, shares in result["preference"].items():
        say("\n" + table(f"{label} prefers, %", shares, ALTERABLE))
    write(result, file)


def main(args: list[str] | None = None) -> None:
    """Runs :func:`card` with the arguments of the command line."""
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    auto_cli(card, args=args, as_positional=False)


if __name__ == "__main__":
    main()
