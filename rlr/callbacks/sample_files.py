"""Samples as files, each image or video in its own."""

from pathlib import Path

from torch import Tensor

from rlr.evaluation.evaluator import Drawing
from rlr.evaluation.images import film, png, to_image
from rlr.io.atomic import write_whole
from rlr.io.json_file import write_json
from rlr.io.video import write_video

NAME = "samples.json"


def write_samples(folder: Path, name: str, drawing: Drawing, fps: float | None) -> None:
    """Writes the samples of a drawing, and then ``samples.json``, which names only files that are there.

    Args:
        folder: The folder.
        name: The name of the set of prompts.
        drawing: The drawing.
        fps: Frames per second of videos; None for images.
    """
    if drawing.samples:
        for stem, pixels in drawing.samples.items():
            write_sample(folder / stem, pixels, fps)
        write_json(folder / NAME, {"set": name, "suffix": suffix(fps), **drawing.facts})


def suffix(fps: float | None) -> str:
    """Returns the suffix of the files of samples."""
    return ".png" if fps is None else ".mp4"


def write_sample(stem: Path, pixels: Tensor, fps: float | None) -> None:
    """Writes an image, or with ``fps`` a video, under its name without the suffix; pixels that are not finite are magenta."""
    file = stem.with_name(stem.name + suffix(fps))
    if fps is None:
        write_whole(file, png(to_image(pixels)))
    else:
        write_video(file, film([to_image(frame) for frame in pixels]), fps)
