"""Measures the built-in world's model of videos: ``python -m rlr.toy.pretraining.evaluate_videos [--prompts 300]``.

Prints, for held-out captions, the share of true claims on real renders (the check's own error), on the autoencoder's
reconstructions of them (the ceiling of any sample) and on samples, these also for novel pairs, for each kind of motion and
for each kind of image. ``dynamic`` is the share in which anything moves, grows or shrinks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jsonargparse import auto_cli
from torch import Tensor

from rlr.chain import Chain
from rlr.evaluation.report import say
from rlr.models import Frozen, Guidance, VideoCrafter
from rlr.samplers import DDIM
from rlr.toy.models import TinyVideo
from rlr.toy.pretraining.evaluate import Shares, sample, table, write
from rlr.toy.world.checker import accuracy
from rlr.toy.world.motion import SIZES, STILL, VIDEO_KINDS, Motion, VideoSpec, parse_video
from rlr.toy.world.prompts import held_out_video_prompts
from rlr.toy.world.tracker import CLAIMS, check_videos
from rlr.toy.world.videos import draw_videos

COLUMNS = (*CLAIMS, "dynamic")
CHUNK = 32
"""How many videos are sampled or decoded at once."""


@torch.no_grad()
def reconstruct(model: VideoCrafter, pixels: Tensor) -> Tensor:
    """Videos in [0, 1] through the autoencoder and back, (N, F, 3, H, W)."""
    vae: Any = model.vae
    chunks = []
    for chunk in pixels.split(CHUNK):
        latents = vae.encode((chunk.flatten(0, 1) * 2 - 1).to(model.dtype)).latent_dist.mode()
        latents = latents.float() * model.architecture.scale_factor
        chunks.append(model.decode(latents.unflatten(0, chunk.shape[:2]).transpose(1, 2)))
    return torch.cat(chunks)


def splits(clips: Sequence[VideoSpec]) -> dict[str, Tensor]:
    """Which of the videos belong to each row of the table of samples."""
    rows: dict[str, Callable[[VideoSpec], bool]] = {
        "novel pairs": lambda clip: clip.spec.novel,
        "known pairs": lambda clip: not clip.spec.novel,
        "moving": lambda clip: clip.motion.direction is not None,
        **{size: lambda clip, size=size: clip.motion.size == size for size in SIZES},  # type: ignore[misc]
        STILL: lambda clip: clip.motion == Motion(),
        **{kind: lambda clip, kind=kind: clip.spec.kind == kind for kind in VIDEO_KINDS},  # type: ignore[misc]
    }
    return {name: torch.tensor([belongs(clip) for clip in clips]) for name, belongs in rows.items()}


def measure(pixels: Mapping[str, Tensor], clips: Sequence[VideoSpec]) -> Shares:
    """The share of true claims for each row of videos; samples are also split by :func:`splits`, where there are any."""
    checks = {name: check_videos(some, clips) for name, some in pixels.items()}
    shares = {name: accuracy(found) for name, found in checks.items()}
    for name, chosen in splits(clips).items():
        if chosen.any():
            part = {claim: values[chosen] for claim, values in checks["samples"].items()}
            shares[f"samples, {name}"] = accuracy(part)
    return shares


def evaluate(
    model: VideoCrafter, prompts: int, seed: int = 777, guidance: float = 4.0, steps: int = 20, eta: float = 0.0
) -> dict[str, Any]:
    """All numbers of the model's card: what was done, and the table ``check``."""
    captions = held_out_video_prompts(prompts, seed)
    clips = [parse_video(caption) for caption in captions]
    real = draw_videos(clips, seed).float() / 255
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


def card(
    model: str | None = None,
    prompts: int = 300,
    guidance: float = 4.0,
    steps: int = 20,
    eta: float = 0.0,
    seed: int = 777,
    file: str | None = None,
) -> None:
    """Measures a model of videos, prints the table, and writes the numbers to a file.

    Args:
        model: A VideoCrafter's folder of videos of the built-in world's size; by default the one of the package.
        prompts: The number of held-out captions.
        guidance: The guidance scale.
        steps: The steps of the sampler.
        eta: The eta of the sampler.
        seed: The seed of captions and noise.
        file: The JSON file of the numbers.
    """
    result = evaluate(TinyVideo(model, trainable=Frozen()), prompts, seed, guidance, steps, eta)
    say(table("exact check, %", result["check"], COLUMNS))
    write(result, file)


def main(args: list[str] | None = None) -> None:
    """Runs :func:`card` with the arguments of the command line."""
    auto_cli(card, args=args, as_positional=False)


if __name__ == "__main__":
    main()
