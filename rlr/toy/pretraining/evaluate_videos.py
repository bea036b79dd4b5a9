"""Measures the built-in world's model of videos: ``python -m rlr.toy.pretraining.evaluate_videos [--prompts 300]``.

Prints, for held-out captions, the share of true claims on real renders (the check's own error), on the autoencoder's
reconstructions of them (the ceiling of any sample) and on samples, these also for novel pairs, for each kind of motion and
for each kind of image. ``dynamic`` is the share in which anything moves, grows or shrinks.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.io.atomic import write_whole
from rlr.models import Frozen, Guidance, VideoCrafter
from rlr.samplers import DDIM
from rlr.seeding import Stream, spawn
from rlr.toy.models import TinyVideo
from rlr.toy.pretraining.evaluate import Table, as_text
from rlr.toy.world.checker import accuracy
from rlr.toy.world.clips import draw_clips
from rlr.toy.world.motion import CLIP_KINDS, SIZES, STILL, Clip, Motion, parse_clip
from rlr.toy.world.prompts import held_out_clips
from rlr.toy.world.tracker import CLAIMS, check_clips

COLUMNS = (*CLAIMS, "dynamic")
CHUNK = 32
"""How many videos are drawn, decoded or checked at once."""

Checks = dict[str, Tensor]


@torch.no_grad()
def sample(chain: Chain, captions: Sequence[str], seed: int = 0) -> Tensor:
    """One video for each caption in [0, 1], (N, F, 3, H, W); the noise of each depends on ``seed`` and its place only."""
    chunks = []
    for i in range(0, len(captions), CHUNK):
        some = captions[i : i + CHUNK]
        noises = chain.draw([spawn(seed, Stream.PRETRAINING, i + k) for k in range(len(some))])
        chunks.append(chain.model.decode(chain.sample(chain.encode(some), noises).states[0]))
    return torch.cat(chunks)


@torch.no_grad()
def reconstruct(model: VideoCrafter, pixels: Tensor) -> Tensor:
    """Videos in [0, 1] through the autoencoder and back, (N, F, 3, H, W)."""
    chunks = []
    for chunk in pixels.split(CHUNK):
        latents = model.vae.encode((chunk.flatten(0, 1) * 2 - 1).to(model.dtype)).latent_dist.mode()
        latents = latents.float() * model.architecture.scale_factor
        chunks.append(model.decode(latents.unflatten(0, chunk.shape[:2]).transpose(1, 2)))
    return torch.cat(chunks)


def check(pixels: Tensor, clips: Sequence[Clip]) -> Checks:
    """:func:`~rlr.toy.world.tracker.check_clips`, some at a time."""
    parts = [check_clips(pixels[i : i + CHUNK], clips[i : i + CHUNK]) for i in range(0, len(clips), CHUNK)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def splits(clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Which of the videos belong to each row of the table of samples."""
    rows: dict[str, Callable[[Clip], bool]] = {
        "novel pairs": lambda clip: clip.spec.novel,
        "known pairs": lambda clip: not clip.spec.novel,
        "moving": lambda clip: clip.motion.direction is not None,
        **{size: lambda clip, size=size: clip.motion.size == size for size in SIZES},  # type: ignore[misc]
        STILL: lambda clip: clip.motion == Motion(),
        **{kind: lambda clip, kind=kind: clip.spec.kind == kind for kind in CLIP_KINDS},  # type: ignore[misc]
    }
    return {name: torch.tensor([belongs(clip) for clip in clips]) for name, belongs in rows.items()}


def measure(pixels: Mapping[str, Tensor], clips: Sequence[Clip]) -> Table:
    """The share of true claims for each row of videos; samples are also split by :func:`splits`, where there are any."""
    checks = {name: check(some, clips) for name, some in pixels.items()}
    table = {name: accuracy(found) for name, found in checks.items()}
    for name, chosen in splits(clips).items():
        if chosen.any():
            part = {claim: values[chosen] for claim, values in checks["samples"].items()}
            table[f"samples, {name}"] = accuracy(part)
    return table


def evaluate(
    model: VideoCrafter, prompts: int, seed: int = 777, guidance: float = 4.0, steps: int = 20, eta: float = 0.0
) -> dict[str, Any]:
    """All numbers of the model's card: what was done, and the table ``check``."""
    captions = held_out_clips(prompts, seed)
    clips = [parse_clip(caption) for caption in captions]
    real = draw_clips(clips, seed).float() / 255
    chain = Chain(Guidance(model, guidance), DDIM(steps, eta))
    reconstructions = reconstruct(model, real)
    pixels = {
        "real renders": real,
        "reconstructions": reconstructions,
        "samples": sample(chain, captions, seed),
    }
    psnr = float(-10 * (reconstructions - real).square().mean().log10())
    facts = {"prompts": prompts, "seed": seed, "guidance": guidance, "steps": steps, "eta": eta, "psnr": psnr}
    return {**facts, "check": measure(pixels, clips)}


def main(args: list[str] | None = None) -> None:
    """Reads the command line, measures, prints the table and writes the JSON file if one is named."""
    parser = argparse.ArgumentParser(prog="python -m rlr.toy.pretraining.evaluate_videos", description=__doc__)
    parser.add_argument("--model", help="a VideoCrafter's folder of videos of the built-in world's size; default: it")
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--eta", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=777)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(args)
    model = TinyVideo(options.model, trainable=Frozen())
    result = evaluate(model, options.prompts, options.seed, options.guidance, options.steps, options.eta)
    sys.stdout.write(as_text("exact check, %", result["check"], COLUMNS))
    if options.json:
        write_whole(options.json, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
