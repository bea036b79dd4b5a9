"""Measures the built-in world's models of images: ``python -m rlr.toy.pretraining.evaluate [--prompts 500] [--file FILE]``.

The flow model is measured with ``--model TinyFlow --sampler FlowSDE --sampler.steps 10 --sampler.noise_level 0``.

Prints, for held-out captions, the share of true claims on real renders (the check's own error), on the autoencoder's
reconstructions of them (the ceiling of any sample) and on samples, these also for novel pairs and for each kind of
caption; then the mean of each learned reward on samples, and how often it prefers a caption to one with a single claim altered.
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
from rlr.samplers import DDIM, FlowSDE, Sampler
from rlr.toy.data.scenes import draw_images
from rlr.toy.models import Tiny, TinyFlow
from rlr.toy.rewards import TinyHPSv2, TinyPickScore
from rlr.toy.world.caption import KINDS, Spec, altered, parse
from rlr.toy.world.checker import CLAIMS, accuracy, check
from rlr.toy.world.prompts import held_out_prompts

KNOWN = (DDIM, FlowSDE, Tiny, TinyFlow)
"""Classes that the command line knows by their short names, because they are imported."""
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
    """How often a reward gives images in [0, 1] of ``specs`` more for their caption than for an altered one.

    NaN where no caption has the claim, as where there are no images.
    """
    if not len(specs):
        return dict.fromkeys(ALTERABLE, float("nan"))
    own = reward(pixels, [spec.caption for spec in specs])
    others = [altered(spec, np.random.default_rng(k)) for k, spec in enumerate(specs)]
    out = {}
    for claim in ALTERABLE:
        index = [k for k, other in enumerate(others) if claim in other]
        if not index:
            out[claim] = float("nan")
            continue
        other = reward(pixels[index], [others[k][claim].caption for k in index])
        out[claim] = float((own[index] > other).float().mean())
    return out


@torch.no_grad()
def evaluate(
    model: StableDiffusion, sampler: Sampler, rewards: Sequence[Reward], prompts: int, guidance: float, seed: int
) -> dict[str, Any]:
    """All numbers of the model card: the tables ``check`` and, by the label of each reward, ``mean`` and ``preference``."""
    captions = held_out_prompts(prompts, seed)
    specs = [parse(caption) for caption in captions]
    real = draw_images(captions, seed).float() / 255
    pixels = {
        "real renders": real,
        "reconstructions": reconstruct(model, real),
        "samples": sample(Chain(Guidance(model, guidance), sampler), captions, seed),
    }
    psnr = float(-10 * (pixels["reconstructions"] - real).square().mean().log10())
    preferences = {reward.label: preferences_of(reward, pixels, specs) for reward in rewards}
    means = {reward.label: reward(pixels["samples"], captions).mean().item() for reward in rewards}
    facts = {"prompts": prompts, "seed": seed, "guidance": guidance, "steps": sampler.steps, "psnr": psnr}
    return {**facts, "check": measure(pixels, specs), "mean": means, "preference": preferences}


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
    model: StableDiffusion | None = None,
    sampler: Sampler | None = None,
    rewards: bool = True,
    prompts: int = 500,
    guidance: float = 4.0,
    seed: int = 777,
    file: str | None = None,
) -> None:
    """Measures a model of images and the learned rewards, prints the tables, and writes the numbers to a file.

    Args:
        model: A model of images of the built-in world's size; by default the built-in one.
        sampler: The sampler; by default DDIM of 20 steps without noise.
        rewards: Whether to measure the rewards, too.
        prompts: The number of held-out captions.
        guidance: The guidance scale.
        seed: The seed of captions and noise.
        file: The JSON file of the numbers.
    """
    model, sampler = model or Tiny(trainable=Frozen()), sampler or DDIM(20, eta=0.0)
    judges = [TinyPickScore(), TinyHPSv2()] if rewards else []
    result = evaluate(model, sampler, judges, prompts, guidance, seed)
    say(table("exact check, %", result["check"], CLAIMS))
    say("\n" + "\n".join(f"mean {label} of samples: {value:.3f}" for label, value in result["mean"].items()))
    for label, shares in result["preference"].items():
        say("\n" + table(f"{label} prefers, %", shares, ALTERABLE))
    write(result, file)


def main(args: list[str] | None = None) -> None:
    """Runs :func:`card` with the arguments of the command line."""
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    auto_cli(card, args=args, as_positional=False)


if __name__ == "__main__":
    main()
