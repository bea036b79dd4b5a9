"""The run of Weights & Biases that belongs to the folder of a run."""

import os
import secrets
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from rlr.cli.run_folder import Run
from rlr.cli.run_name import run_group, run_name
from rlr.io.atomic import write_whole

PROJECT = "rlr"
"""The project, unless a config or the environment variable ``WANDB_PROJECT`` names another one."""


def place(config: Any, run: Run, resumed: bool) -> None:
    """Gives the W&B loggers of a parsed config the folder, name, group and identity of the run, where the config has no other.

    A new run gets a new identity, which is kept in ``wandb/id``; a resumed run, and other commands on the folder, continue it. The
    agent of a sweep gives a run its identity itself. The variables ``WANDB_NAME`` and ``WANDB_RUN_GROUP`` have precedence.

    Args:
        config: The config, whose part ``trainer`` is changed.
        run: The folder of the run.
        resumed: Whether to continue the run of W&B.
    """
    given = config.trainer.logger
    for logger in given if isinstance(given, list) else [given]:
        if getattr(logger, "class_path", "").endswith("WandbLogger"):
            arguments = logger.init_args
            settings, place = config.as_dict(), run.folder / "wandb"
            if arguments.id is None and arguments.version is None:
                # the agent of a sweep gives the identity
                arguments.id = os.environ.get("WANDB_RUN_ID") or _kept(place / "id", secrets.token_hex(4), resumed)
            group = arguments.get("group") or os.environ.get("WANDB_RUN_GROUP")
            # more updates in the run that resumes do not make it one of another group
            arguments.group = group or _kept(place / "group", run_group(settings), resumed)
            if str(arguments.save_dir) == ".":
                arguments.save_dir = str(run.folder)
            arguments.name = arguments.name or os.environ.get("WANDB_NAME") or run_name(run.folder, settings)
            arguments.project = arguments.project or os.environ.get("WANDB_PROJECT", PROJECT)


def without_anonymous(logger: Any) -> Any:
    """Returns a logger that passes W&B no ``anonymous``: Lightning sets it to None, and W&B warns of every value."""
    arguments = getattr(logger, "_wandb_init", {})
    if arguments.get("anonymous", True) is None:
        del arguments["anonymous"]
    return logger


def _kept(file: Path, new: str, resumed: bool) -> str:
    """Returns what the file of a resumed run holds; the first process keeps what is new in it."""
    if resumed and file.is_file():
        return file.read_text(encoding="utf-8", errors="replace").strip()
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        write_whole(file, f"{new}\n".encode())
    return new
