"""Sampling from a checkpoint: a ``predict`` run of the config that the checkpoint was trained with."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from rlr.cli import main
from rlr.cli.command_line import CLI
from rlr.cli.run_folder import Run
from rlr.cli.vbench.prediction import MissingVideos, VideoWriter
from rlr.evaluation.vbench.weights import digest
from rlr.io.atomic import write_whole

ORIGIN = "origin.json"
"""The file beside the videos that says what they were made with."""

USELESS = (
    # what wrote the checkpoint is not needed to read it; an EMA, which is, stands in the config
    r".*Please add the following callbacks: \[.Checkpointing\{[^{}]*\}.\].*",
    # the writer uses the numbers in the batches
    ".*Couldn't infer the batch indices.*",
)
"""Warnings about what is intended."""


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
    """A ``predict`` run that writes videos, and refuses to mix those of two models in one folder."""

    def _further(self, config: dict[str, Any]) -> list[Callback]:
        return [VideoWriter()]

    def before_predict(self) -> None:
        """Checks that the videos that are there come from the same config and checkpoint."""
        assert isinstance(self.datamodule, MissingVideos)
        for useless in USELESS:
            warnings.filterwarnings("ignore", useless)
        claim(self.datamodule.folder, self._origin(self.datamodule))

    def _origin(self, data: MissingVideos) -> dict[str, Any]:
        config = json.loads(self.parser.dump(self.config, format="json", skip_check=True))["predict"]
        made = {name: config["model"]["init_args"].get(name) for name in ("model", "sampler", "seed")}
        # an average of the weights is a callback
        trainer = {name: config["trainer"].get(name) for name in ("precision", "callbacks")}
        path = config.get("ckpt_path")
        return {
            "checkpoint": digest(Path(path)) if path else None,
            **made,
            **trainer,
            "fps": data.fps,
            "enlarge": data.enlarge,
        }


def claim(folder: Path, origin: Mapping[str, Any]) -> None:
    """Notes what the videos in a folder are made with.

    Raises:
        ValueError: If there are videos of something else.
    """
    path = folder / ORIGIN
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if found is None and any(folder.glob("*.mp4")):
        raise ValueError(f"{folder} holds videos, and no {ORIGIN} that says of what; set another --out")
    other = [name for name in origin if found is not None and found.get(name) != origin[name]]
    if other:
        raise ValueError(
            f"the videos in {folder} were made with another {' and '.join(other)}; set another --out, or delete the folder"
        )
    write_whole(path, f"{json.dumps(origin, indent=1, ensure_ascii=False)}\n".encode())


def config_of(checkpoint: Path) -> Path:
    """Returns the config of the ``fit`` that has written a checkpoint, which is beside it.

    Raises:
        FileNotFoundError: If there is no such checkpoint, or no config beside it.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f"there is no checkpoint {checkpoint} (looked for at {checkpoint.absolute()})")
    return Run(checkpoint.absolute().parent).config
