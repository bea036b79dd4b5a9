"""Runs that are commands of ``train.py``, executed in this process."""

import gc
import hashlib
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch.cli import LightningCLI

from experiments.base import Row, Run
from experiments.methods import Method
from experiments.settings import Setting


@dataclass(frozen=True)
class Command(ABC):
    """A command whose evaluation config overrides the config of a method.

    Args:
        method: The method.
        evaluation: The config with the evaluation, which overrides that of the method.
        seed: The seed of the run.
    """

    method: Method
    evaluation: str
    seed: int

    @property
    @abstractmethod
    def arguments(self) -> list[str]:
        """The arguments of ``train.py`` for this run, without its folder."""

    @abstractmethod
    def run(self, folder: Path, base: Path) -> Sequence[Row]:
        """Starts or resumes the run, and returns the rows.

        Args:
            folder: The folder of the run.
            base: The folder that all runs of an experiment share.
        """

    @property
    def configuration(self) -> list[str]:
        """The arguments for the method, its evaluation and the seed."""
        return [
            f"--config={self.method.config}",
            f"--config={self.evaluation}",
            *method_arguments(self.method, self.seed),
        ]

    @property
    def command(self) -> str:
        """The command line."""
        return command_line(self.arguments)

    def as_run(self, setting: Setting, experiment: str, key: Mapping[str, str | int]) -> Run:
        """Returns the command as a run of an experiment."""
        folder = run_folder(setting, experiment, key, self.command)
        return Run(key, self.command, lambda: self.run(folder, folder.parent / "base"))


def method_arguments(method: Method, seed: int) -> list[str]:
    """Returns the arguments of a method that its config does not contain, including the seed."""
    seeds = (f"--{name}={seed}" for name in method.seeds)
    return [*(f"--{argument}" for argument in method.overrides), f"--seed_everything={seed}", *seeds]


def command_line(arguments: Sequence[str]) -> str:
    """Returns the command with these arguments of ``train.py``."""
    return f"python train.py {shlex.join(arguments)}"


def run_folder(setting: Setting, experiment: str, key: Mapping[str, str | int], command: str) -> Path:
    """Returns the folder of a run."""
    title = "-".join(str(value).replace("/", "") for value in key.values()).replace(" ", "_")
    # this run must not resume from checkpoints of another command
    digest = hashlib.sha256(command.encode()).hexdigest()[:8]
    return setting.runs / setting.name / experiment / f"{title}-{digest}"


def resume_arguments(folder: Path) -> list[str]:
    """Returns the arguments that resume a run if its folder has a checkpoint."""
    last = folder / "checkpoints" / "last.ckpt"
    return [f"--ckpt_path={last}"] if last.is_file() else []


def run_command(arguments: Sequence[str]) -> LightningCLI:
    """Runs ``train.py`` in this process."""
    from rlr.cli import main

    try:
        return main(list(arguments))
    except SystemExit as left:
        if left.code == MISTAKE:
            raise RuntimeError("the run stopped because of a mistake; see its message above") from left
        # the trainer turns an interrupt into an exit, and the next run must not start
        raise KeyboardInterrupt from left


MISTAKE = 2
"""The exit status of ``train.py`` after a mistake in config or data, or after a run that diverged."""


def release() -> None:
    """Frees the memory of a finished run."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
