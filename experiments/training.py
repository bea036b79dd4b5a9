"""One training run as a cell: a command of ``train.py``, run in this process, and evaluated on its way."""

import gc
import hashlib
import shlex
import shutil
from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch.cli import LightningCLI

from experiments.base import Cell, Row
from experiments.curve import Curve
from experiments.methods import Method
from experiments.scales import ROOT, Scale

MISTAKE = 2
"""The status with which ``train.py`` ends after a mistake in config or data, or a run that diverged."""


@dataclass(frozen=True)
class Training:
    """A training run.

    Args:
        method: How to train.
        layer: The config with the evaluation, which is laid over that of the method.
        seed: Decides noises, training prompts and their order.
        points: After how many updates to evaluate, increasing; the last is the end.
    """

    method: Method
    layer: str
    seed: int
    points: tuple[int, ...]

    @property
    def words(self) -> list[str]:
        """The words of ``train.py`` that are this run, but for its folder."""
        return [
            "fit",
            f"--config={self.method.config}",
            f"--config={self.layer}",
            *(f"--{word}" for word in self.method.overrides),
            f"--seed_everything={self.seed}",
            *(f"--{name}={self.seed}" for name in self.method.seeds),
            f"--trainer.max_steps={self.points[-1]}",
            f"--trainer.callbacks.updates=[{','.join(map(str, self.points))}]",
        ]

    @property
    def recipe(self) -> str:
        """The command."""
        return f"python train.py {shlex.join(self.words)}"

    def cell(self, scale: Scale, experiment: str, key: Mapping[str, str | int]) -> Cell:
        """Returns the run as a cell of an experiment."""
        title = "-".join(str(value).replace("/", "") for value in key.values()).replace(" ", "_")
        # a run of another recipe leaves checkpoints that this one must not resume from
        digest = hashlib.sha256(self.recipe.encode()).hexdigest()[:8]
        folder = scale.runs / scale.name / experiment
        return Cell(key, self.recipe, lambda: self.run(folder / f"{title}-{digest}", folder / "base"))

    def arguments(self, folder: Path, base: Path) -> list[str]:
        """Returns all words of ``train.py``, resuming where the folder has a checkpoint."""
        last = folder / "checkpoints" / "last.ckpt"
        resumed = [f"--ckpt_path={last}"] if last.is_file() else []
        places = [f"--trainer.default_root_dir={folder}", f"--trainer.callbacks.folder={base}"]
        return [*self.words, *places, *resumed]

    def run(self, folder: Path, base: Path) -> Sequence[Row]:
        """Trains, or goes on, and returns a row for each point and set of prompts.

        Args:
            folder: The run's own, of which only the config is left at the end.
            base: The folder of the base model's scores, which all runs of an experiment share.
        """
        with chdir(ROOT):
            cli = _called(self.arguments(folder, base))
            curve = next(c for c in cli.trainer.callbacks if isinstance(c, Curve))  # type: ignore[attr-defined]
        rows = curve.rows
        del cli
        _release()
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        if not rows or rows[-1]["update"] != self.points[-1]:
            raise RuntimeError(f"the run in {folder} ended before update {self.points[-1]}; start the experiment again")
        return rows


def _called(words: Sequence[str]) -> LightningCLI:
    """Runs ``train.py`` in this process."""
    from rlr.cli import main

    try:
        return main(list(words))
    except SystemExit as left:
        if left.code == MISTAKE:
            raise RuntimeError("the run stopped with a mistake, which it has told above") from left
        # the trainer makes an exit of an interrupt, and the next cell must not begin
        raise KeyboardInterrupt from left


def _release() -> None:
    """Gives back the memory of a run that is over."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
