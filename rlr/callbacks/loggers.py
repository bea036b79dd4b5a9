"""Images, videos and tables for every logger that can show them.

For a logger of another class, register a function: ``show_image.register(MyLogger, function)``.
"""

from functools import singledispatch
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from PIL import Image

from rlr.evaluation.images import png, sheet, to_image
from rlr.evaluation.report import Table
from rlr.io.atomic import write_whole
from rlr.io.video import Video, write_video
from rlr.modules.alignment import Alignment


def log_numbers(trainer: Trainer, module: Alignment, numbers: dict[str, float]) -> None:
    """Passes numbers to every logger."""
    for logger in trainer.loggers:
        logger.log_metrics(numbers, now(module))


def now(module: Alignment) -> int:
    """Returns the step to log at, the number of batches trained on: Lightning, too, counts batches and not updates."""
    return module.progress.batches


def updates(trainer: Trainer, module: Alignment) -> int:
    """Returns how many updates the weights have seen; outside training those of the checkpoint."""
    return trainer.global_step or module.progress.updates or module.progress.batches // module.optimization.accumulate


@singledispatch
def show_image(logger: Logger, name: str, image: Image.Image, step: int) -> None:
    """Shows an image in a logger; does nothing for a logger without images.

    Args:
        logger: The logger.
        name: The name of the image, such as ``samples``.
        image: The image.
        step: The step of the run.
    """


@show_image.register
def _(logger: WandbLogger, name: str, image: Image.Image, step: int) -> None:
    logger.log_image(name, [image], step)


@show_image.register
def _(logger: TensorBoardLogger, name: str, image: Image.Image, step: int) -> None:
    logger.experiment.add_image(name, np.asarray(image), step, dataformats="HWC")


@show_image.register
def _(logger: CSVLogger, name: str, image: Image.Image, step: int) -> None:
    write_whole(_beside(logger, name, step, "png"), png(image))


@singledispatch
def show_video(logger: Logger, name: str, video: Video, step: int) -> None:
    """Shows a video in a logger; does nothing for a logger without videos.

    Weights & Biases plays an mp4, and the CSV logger has one beside its file. TensorBoard plays none without moviepy,
    so it shows a sheet of six frames.

    Args:
        logger: The logger.
        name: The name of the video, such as ``samples``.
        video: The video.
        step: The step of the run.
    """


@show_video.register
def _(logger: WandbLogger, name: str, video: Video, step: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, video.frames, video.fps)
        # the file is copied at once
        logger.log_video(name, [str(path)], step, format=["mp4"])


@show_video.register
def _(logger: TensorBoardLogger, name: str, video: Video, step: int) -> None:
    show_image(logger, name, sheet([to_image(frame / 255) for frame in video.frames]), step)


@show_video.register
def _(logger: CSVLogger, name: str, video: Video, step: int) -> None:
    write_video(_beside(logger, name, step, "mp4"), video.frames, video.fps)


@singledispatch
def show_table(logger: Logger, name: str, table: Table, step: int) -> None:
    """Shows a table in a logger; does nothing for a logger without tables.

    Args:
        logger: The logger.
        name: The name of the table, such as ``evaluation/hpdv2``.
        table: The table.
        step: The step of the run.
    """


@show_table.register
def _(logger: WandbLogger, name: str, table: Table, step: int) -> None:
    logger.log_table(name, columns=list(table.head), data=[list(row) for row in table.rows], step=step)


@show_table.register
def _(logger: TensorBoardLogger, name: str, table: Table, step: int) -> None:
    logger.experiment.add_text(name, table.markdown(), step)


@show_table.register
def _(logger: CSVLogger, name: str, table: Table, step: int) -> None:
    write_whole(_beside(logger, name, step, "csv"), table.csv())


def _beside(logger: CSVLogger, name: str, step: int, suffix: str) -> Path:
    """Returns the file beside a logger's own that stands for what it cannot hold."""
    return Path(logger.log_dir) / "media" / f"{name}_{step:06d}.{suffix}"
