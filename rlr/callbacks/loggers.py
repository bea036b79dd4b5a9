"""Numbers, images, videos, tables and files for every logger that can show them.

Names of images and videos begin with ``media/``, those of tables with ``tables/``; no number has such a name. The step of all is
the number of updates that the weights have seen.

For a logger of another class, register a function: ``show_image.register(MyLogger, function)``.
"""

from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from PIL import Image
from torch import Tensor

from rlr.evaluation.images import png, sheet, to_image
from rlr.evaluation.report import Table
from rlr.evaluation.sample_table import SampleTable
from rlr.io.atomic import write_whole
from rlr.io.video import Video, write_video
from rlr.modules.alignment import Alignment


def log_numbers(trainer: Trainer, module: Alignment, numbers: dict[str, float]) -> None:
    """Passes numbers to every logger, with the count of reward calls, so that they can be plotted against it."""
    counted = {**numbers, "reward_calls": float(module.progress.reward_calls)}
    for logger in trainer.loggers:
        logger.log_metrics(counted, updates(trainer, module))


def updates(trainer: Trainer, module: Alignment) -> int:
    """Returns how many updates the weights have seen; outside training those of the checkpoint."""
    return trainer.global_step or module.progress.updates or module.progress.batches // module.optimization.accumulate


@singledispatch
def show_image(logger: Logger, name: str, image: Image.Image, step: int) -> None:
    """Shows an image in a logger; does nothing for a logger without images.

    Args:
        logger: The logger.
        name: The name of the image, such as ``media/samples``.
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
    write_whole(_media_file(logger, name, step, "png"), png(image))


@singledispatch
def show_video(logger: Logger, name: str, video: Video, step: int) -> None:
    """Shows a video in a logger; does nothing for a logger without videos.

    Weights & Biases plays an mp4, and the CSV logger has one beside its file. TensorBoard plays none without moviepy,
    so it shows a sheet of six frames.

    Args:
        logger: The logger.
        name: The name of the video, such as ``media/samples``.
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
    write_video(_media_file(logger, name, step, "mp4"), video.frames, video.fps)


@singledispatch
def show_table(logger: Logger, name: str, table: Table, step: int) -> None:
    """Shows a table in a logger; does nothing for a logger without tables.

    Args:
        logger: The logger.
        name: The name of the table, such as ``tables/hpdv2``.
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
    write_whole(_media_file(logger, name, step, "csv"), table.csv())


@singledispatch
def show_samples(logger: Logger, name: str, table: SampleTable, step: int) -> None:
    """Shows samples with their prompts and scores in a logger; does nothing for a logger whose tables hold no images.

    Args:
        logger: The logger.
        name: The name of the table, such as ``tables/samples/hpdv2``.
        table: The table.
        step: The step of the run.
    """


@show_samples.register
def _(logger: WandbLogger, name: str, table: SampleTable, step: int) -> None:
    with TemporaryDirectory() as folder:
        data = [
            [row.prompt, *(_cell(pixels, table.fps, Path(folder)) for pixels in row.samples), *row.scores]
            for row in table.rows
        ]
        logger.log_table(name, columns=table.head, data=data, step=step)


def _cell(pixels: Tensor, fps: float | None, folder: Path) -> Any:
    import wandb

    if fps is None:
        return wandb.Image(to_image(pixels))
    path = folder / f"{len(list(folder.iterdir()))}.mp4"
    write_video(path, pixels, fps)
    return wandb.Video(str(path), format="mp4")


@singledispatch
def keep_files(logger: Logger, name: str, folder: Path, facts: Mapping[str, Any]) -> None:
    """Keeps the files of a folder with the run of a logger; does nothing for a logger without files.

    Args:
        logger: The logger.
        name: What the files are, such as ``adapter``.
        folder: The folder.
        facts: What is known of the files, as plain data.
    """


@keep_files.register
def _(logger: WandbLogger, name: str, folder: Path, facts: Mapping[str, Any]) -> None:
    import wandb

    artifact = wandb.Artifact(f"{name}-{logger.experiment.id}", type=name, metadata=dict(facts))
    artifact.add_dir(str(folder))
    logger.experiment.log_artifact(artifact)


def _media_file(logger: CSVLogger, name: str, step: int, suffix: str) -> Path:
    """Returns the file beside a logger's own that stands for what it cannot hold."""
    return Path(logger.log_dir) / "media" / f"{name.removeprefix('media/')}_{step:06d}.{suffix}"
