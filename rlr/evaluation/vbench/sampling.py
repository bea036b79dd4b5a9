r"""The clips of a set, each from a noise of its own.

The noise of sample :math:`i` of a prompt follows from the module's seed, the prompt and :math:`i` alone: not from the
batch, the rank, the other prompts, or whether sampling was interrupted.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from rlr.evaluation.sampling import render
from rlr.evaluation.vbench.naming import Clip
from rlr.io.video import write_video
from rlr.models.base import DiffusionModel
from rlr.modules.alignment import Alignment
from rlr.seeding import Stream, spawn

FPS = 8.0
"""Frames a second of VBench's own sample code, for a model that does not say its rate."""


def rate(model: DiffusionModel) -> float:
    """Returns the frames a second of a model's clips."""
    return model.size.fps or FPS


def write_clip(path: Path, pixels: Tensor, fps: float, enlarge: int = 1) -> None:
    r"""Writes a clip with pixels in [0, 1], of shape :math:`(F, 3, H, W)`, each as a square of ``enlarge`` pixels.

    Raises:
        ValueError: If it is no clip.
    """
    if pixels.ndim != 4:
        raise ValueError(
            f"VBench judges clips, and the model makes samples of shape {tuple(pixels.shape)}; use a text-to-video model"
        )
    write_video(path, pixels.repeat_interleave(enlarge, -1).repeat_interleave(enlarge, -2), fps)


def sample(module: Alignment, clips: Sequence[Clip], batch: int = 4) -> Iterator[tuple[Clip, Tensor]]:
    r"""Yields clips with their pixels in [0, 1], of shape :math:`(F, 3, H, W)`.

    Args:
        module: The model with its sampler and seed.
        clips: Which.
        batch: How many are made at once.
    """
    for at in range(0, len(clips), batch):
        piece = clips[at : at + batch]
        # as `Alignment.generate` would
        seeds = [spawn(module.seed, Stream.EVALUATION, clip.key) for clip in piece]
        yield from zip(piece, render(module.chain, [clip.prompt for clip in piece], seeds), strict=True)
