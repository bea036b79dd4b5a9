"""Pictures, clips and tables for every logger that can show them.

To teach a logger of another class, register a function for it: ``show_picture.register(MyLogger, function)``.
"""

import csv
import io
from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from PIL import Image

from rlr.evaluation.pictures import picture, png, sheet
from rlr.evaluation.table import Line, markdown
from rlr.io.atomic import write_whole
from rlr.io.video import Video, write_video
from rlr.modules.alignment import Alignment


def log_numbers(trainer: Trainer, module: Alignment, numbers: dict[str, float]) -> None:
    """Sends numbers to every logger."""
    for logger in trainer.loggers:
        logger.log_metrics(numbers, now(module))


def now(module: Alignment) -> int:
    """Returns the step to log at, the number of batches trained on: Lightning, too, counts batches and not updates."""
    return module.progress.batches


def updates(trainer: Trainer, module: Alignment) -> int:
    """Returns how many updates the weights have seen; outside training the checkpoint tells."""
    return trainer.global_step or module.progress.updates or module.progress.batches // module.optimization.accumulate


@singledispatch
def show_picture(logger: Logger, name: str, image: Image.Image, step: int) -> None:
    """Shows a picture in a logger; one that has no means to is passed over.

    Args:
        logger: The logger.
        name: What it is called, such as ``samples``.
        image: The picture.
        step: The step of the run.
    """


@show_picture.register
def _(logger: WandbLogger, name: str, image: Image.Image, step: int) -> None:
    logger.log_image(name, [image], step)


@show_picture.register
def _(logger: TensorBoardLogger, name: str, image: Image.Image, step: int) -> None:
    logger.experiment.add_image(name, np.asarray(image), step, dataformats="HWC")


@show_picture.register
def _(logger: CSVLogger, name: str, image: Image.Image, step: int) -> None:
    write_whole(_beside(logger, name, step, "png"), png(image))


@singledispatch
def show_video(logger: Logger, name: str, video: Video, step: int) -> None:
    """Shows a clip in a logger; one that has no means to is passed over.

    Weights & Biases plays an mp4, and the CSV logger has one beside its file. TensorBoard plays none without moviepy,
    so it shows a sheet of six frames.

    Args:
        logger: The logger.
        name: What it is called, such as ``samples``.
        video: The clip.
        step: The step of the run.
    """


@show_video.register
def _(logger: WandbLogger, name: str, video: Video, step: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, video.frames, video.fps)
        # the file is copied at once
        logger.log_video(name, [str(path)], step, format=["mp4"])


@show_video.register
def _(logger: TensorBoardLogger, name: str, video: Video, step: int) -> None:
    show_picture(logger, name, sheet([picture(frame / 255) for frame in video.frames]), step)


@show_video.register
def _(logger: CSVLogger, name: str, video: Video, step: int) -> None:
    write_video(_beside(logger, name, step, "mp4"), video.frames, video.fps)


@singledispatch
def show_table(logger: Logger, name: str, lines: Sequence[Line], step: int) -> None:
    """Shows a table in a logger; one that has no means to is passed over.

    Args:
        logger: The logger.
        name: What it is called, such as ``evaluation/hpdv2``.
        lines: Its lines of text, the head first.
        step: The step of the run.
    """


@show_table.register
def _(logger: WandbLogger, name: str, lines: Sequence[Line], step: int) -> None:
    logger.log_table(name, columns=list(lines[0]), data=[list(line) for line in lines[1:]], step=step)


@show_table.register
def _(logger: TensorBoardLogger, name: str, lines: Sequence[Line], step: int) -> None:
    logger.experiment.add_text(name, markdown(lines), step)


@show_table.register
def _(logger: CSVLogger, name: str, lines: Sequence[Line], step: int) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    write_whole(_beside(logger, name, step, "csv"), buffer.getvalue().encode())


def _beside(logger: CSVLogger, name: str, step: int, suffix: str) -> Path:
    """Returns the file beside a logger's own that stands for what it cannot hold."""
    return Path(logger.log_dir) / "media" / f"{name}_{step:06d}.{suffix}"
