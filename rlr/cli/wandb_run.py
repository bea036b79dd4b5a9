"""The run of Weights & Biases that belongs to the folder of a run."""

import os
import secrets
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from rlr.cli.run_folder import Run
from rlr.io.atomic import write_whole

PROJECT = "rlr"
"""The project, unless a config or the environment variable ``WANDB_PROJECT`` names another one."""


def place(trainer: Any, run: Run, resumed: bool) -> None:
    """Gives the W&B loggers of a parsed config the folder, the name and the identity of the run, where the config has no other.

    A new run gets a new identity, which is kept in ``wandb/id``; a resumed run, and other commands on the folder, continue it.

    Args:
        trainer: The part ``trainer`` of the config, which is changed.
        run: The folder of the run.
        resumed: Whether to continue the run of W&B.
    """
    listed = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    for logger in listed:
        if getattr(logger, "class_path", "").endswith("WandbLogger"):
            arguments = logger.init_args
            if arguments.id is None and arguments.version is None:
                arguments.id = _identity(run.folder / "wandb" / "id", resumed)
            if str(arguments.save_dir) == ".":
                arguments.save_dir = str(run.folder)
            arguments.name = arguments.name or run.folder.name
            arguments.project = arguments.project or os.environ.get("WANDB_PROJECT", PROJECT)


def _identity(file: Path, resumed: bool) -> str:
    """Returns the identity of a run; the first process keeps a new one in the file."""
    if resumed and file.is_file():
        return file.read_text(encoding="utf-8").strip()
    new = secrets.token_hex(4)
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        write_whole(file, f"{new}\n".encode())
    return new
