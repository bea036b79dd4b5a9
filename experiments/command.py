"""A command of ``train.py`` as a cell: it runs in this process, and its arguments are the recipe."""

import gc
import hashlib
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch.cli import LightningCLI

from experiments.base import Cell, Row
from experiments.methods import Method
from experiments.scales import Scale


@dataclass(frozen=True)
class Command(ABC):
    """A command whose evaluation config overrides the config of a method.

    Args:
        method: The method.
        layer: The config with the evaluation, which overrides that of the method.
        seed: The seed of the run.
    """

    method: Method
    layer: str
    seed: int

    @property
    @abstractmethod
    def words(self) -> list[str]:
        """The arguments of ``train.py`` for this run, without its folder."""

    @abstractmethod
    def run(self, folder: Path, base: Path) -> Sequence[Row]:
        """Starts or resumes the run, and returns the rows.

        Args:
            folder: The folder of the run.
            base: The folder that all runs of an experiment share.
        """

    @property
    def settings(self) -> list[str]:
        """The arguments for the method, its evaluation and the seed."""
        return [f"--config={self.method.config}", f"--config={self.layer}", *chosen(self.method, self.seed)]

    @property
    def recipe(self) -> str:
        """The command."""
        return recipe(self.words)

    def cell(self, scale: Scale, experiment: str, key: Mapping[str, str | int]) -> Cell:
        """Returns the run as a cell of an experiment."""
        folder = place(scale, experiment, key, self.recipe)
        return Cell(key, self.recipe, lambda: self.run(folder, folder.parent / "base"))


def chosen(method: Method, seed: int) -> list[str]:
    """Returns the arguments of a method that its config does not contain, including the seed."""
    seeds = (f"--{name}={seed}" for name in method.seeds)
    return [*(f"--{word}" for word in method.overrides), f"--seed_everything={seed}", *seeds]


def recipe(words: Sequence[str]) -> str:
    """Returns the command with these arguments of ``train.py``."""
    return f"python train.py {shlex.join(words)}"


def place(scale: Scale, experiment: str, key: Mapping[str, str | int], recipe: str) -> Path:
    """Returns the folder of a cell."""
    title = "-".join(str(value).replace("/", "") for value in key.values()).replace(" ", "_")
    # this run must not resume from checkpoints of another recipe
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:8]
    return scale.runs / scale.name / experiment / f"{title}-{digest}"


def resumed(folder: Path) -> list[str]:
    """Returns the arguments that resume a run if its folder has a checkpoint."""
    last = folder / "last.ckpt"
    return [f"--ckpt_path={last}"] if last.is_file() else []


def called(words: Sequence[str]) -> LightningCLI:
    """Runs ``train.py`` in this process."""
    from rlr.cli import main

    try:
        return main(list(words))
    except SystemExit as left:
        if left.code == MISTAKE:
            raise RuntimeError("the run stopped because of a mistake; see its message above") from left
        # the trainer turns an interrupt into an exit, and the next cell must not start
        raise KeyboardInterrupt from left


MISTAKE = 2
"""The exit status of ``train.py`` after a mistake in config or data, or after a run that diverged."""


def release() -> None:
    """Frees the memory of a finished run."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
