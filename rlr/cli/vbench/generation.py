"""Sampling from a checkpoint: a ``predict`` run of the config that the checkpoint was trained with."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from rlr.callbacks import ProgressLine
from rlr.cli import main
from rlr.cli.command_line import CLI
from rlr.cli.run_folder import Run
from rlr.cli.vbench.prediction import VideoWriter


@dataclass(frozen=True)
class Source:
    """What videos are sampled from.

    Args:
        config: The config.
        checkpoint: The checkpoint; without one the base model is sampled from.
        overrides: Further options, as of ``train.py predict``.
    """

    config: Path
    checkpoint: Path | None = None
    overrides: Sequence[str] = field(default_factory=tuple)

    def sample(self, data: Mapping[str, Any], out: Path) -> bool:
        """Makes the videos that are missing.

        Args:
            data: All arguments of :class:`~rlr.cli.vbench.prediction.MissingVideos`: one that is left out could come from the
                data of the config.
            out: The trainer's root folder.

        Returns:
            Whether this is the first process; the others have done their share.

        Raises:
            SystemExit: With status 2, after one sentence on stderr, for a mistake in config, checkpoint or folder.
        """
        checkpoint = [f"--ckpt_path={self.checkpoint}"] if self.checkpoint else []
        given = [
            f"--data.init_args.{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in data.items()
        ]
        cli = main(
            [
                "predict",
                f"--config={self.config}",
                *checkpoint,
                "--model.init_args.reward=rlr.cli.vbench.prediction.Unscored",
                "--data=rlr.cli.vbench.prediction.MissingVideos",
                *given,
                "--trainer.logger=false",
                f"--trainer.default_root_dir={out}",
                *self.overrides,
            ],
            Sampling,
        )
        return cli.trainer.is_global_zero


class Sampling(CLI):
    """A ``predict`` run that writes the videos of VBench's prompts."""

    def _further(self, config: dict[str, Any]) -> list[Callback]:
        return [VideoWriter(), *([ProgressLine()] if self._speaks else [])]

    def _end(self, subcommand: str) -> None:
        """The command for VBench states where the results are."""


def config_of(checkpoint: Path) -> Path:
    """Returns the config of the ``fit`` that has written a checkpoint, which is beside it.

    Raises:
        FileNotFoundError: If there is no such checkpoint, or no config beside it.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f"there is no checkpoint {checkpoint} (looked for at {checkpoint.absolute()})")
    return Run(checkpoint.absolute().parent).config
