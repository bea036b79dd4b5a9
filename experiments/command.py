"""A command of ``train.py`` as a cell: run in this process, its words are the recipe."""

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
    """A command with an evaluation laid over the config of a method.

    Args:
        method: What is run.
        layer: The config with the evaluation, which is laid over that of the method.
        seed: Decides what is random in the run.
    """

    method: Method
    layer: str
    seed: int

    @property
    @abstractmethod
    def words(self) -> list[str]:
        """The words of ``train.py`` that are this run, but for its folder."""

    @abstractmethod
    def run(self, folder: Path, base: Path) -> Sequence[Row]:
        """Runs, or goes on, and returns the rows.

        Args:
            folder: The run's own.
            base: The folder of what all runs of an experiment share.
        """

    @property
    def settings(self) -> list[str]:
        """The words that are the method, its evaluation and the seed."""
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
    """Returns the words of a method that its config does not say, the seed among them."""
    seeds = (f"--{name}={seed}" for name in method.seeds)
    return [*(f"--{word}" for word in method.overrides), f"--seed_everything={seed}", *seeds]


def recipe(words: Sequence[str]) -> str:
    """Returns the command of some words of ``train.py``."""
    return f"python train.py {shlex.join(words)}"


def place(scale: Scale, experiment: str, key: Mapping[str, str | int], recipe: str) -> Path:
    """Returns the folder of a cell."""
    title = "-".join(str(value).replace("/", "") for value in key.values()).replace(" ", "_")
    # a run of another recipe leaves checkpoints that this one must not resume from
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:8]
    return scale.runs / scale.name / experiment / f"{title}-{digest}"


def resumed(folder: Path) -> list[str]:
    """Returns the words that resume a run in its folder, where that has a checkpoint."""
    last = folder / "checkpoints" / "last.ckpt"
    return [f"--ckpt_path={last}"] if last.is_file() else []


def called(words: Sequence[str]) -> LightningCLI:
    """Runs ``train.py`` in this process."""
    from rlr.cli import main

    try:
        return main(list(words))
    except SystemExit as left:
        if left.code == MISTAKE:
            raise RuntimeError("the run stopped with a mistake, which it has told above") from left
        # the trainer makes an exit of an interrupt, and the next cell must not begin
        raise KeyboardInterrupt from left


MISTAKE = 2
"""The status with which ``train.py`` ends after a mistake in config or data, or a run that diverged."""


def release() -> None:
    """Gives back the memory of a run that is over."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
