"""A training run as a cell, with evaluations during training."""

from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from experiments.base import Row
from experiments.command import Command, called, release, resumed
from experiments.curve import Curve
from experiments.scales import ROOT


@dataclass(frozen=True)
class Training(Command):
    """A training run.

    Args:
        method: The method.
        layer: The config with the evaluation, which overrides that of the method.
        seed: The seed of noises, training prompts and their order.
        points: The increasing numbers of updates after which to evaluate; the last is the end of the run.
    """

    points: tuple[int, ...]

    @property
    def words(self) -> list[str]:
        return [
            "fit",
            *self.settings,
            f"--trainer.max_steps={self.points[-1]}",
            f"--trainer.callbacks.updates=[{','.join(map(str, self.points))}]",
        ]

    def arguments(self, folder: Path, base: Path) -> list[str]:
        """Returns all arguments of ``train.py``; the run resumes if the folder has a checkpoint."""
        places = [f"--trainer.default_root_dir={folder}", f"--trainer.callbacks.folder={base}"]
        return [*self.words, *places, *resumed(folder)]

    def run(self, folder: Path, base: Path) -> Sequence[Row]:
        """Starts or resumes training, and returns a row for each point and set of prompts.

        Args:
            folder: The folder of the run; only the config remains at the end.
            base: The folder of the base model's scores, which all runs of an experiment share.
        """
        with chdir(ROOT):
            cli = called(self.arguments(folder, base))
            curve = next(c for c in cli.trainer.callbacks if isinstance(c, Curve))  # type: ignore[attr-defined]
        rows = curve.rows
        del cli
        release()
        for file in folder.glob("*.ckpt"):
            file.unlink()
        if not rows or rows[-1]["update"] != self.points[-1]:
            raise RuntimeError(f"the run in {folder} ended before update {self.points[-1]}; start the experiment again")
        return rows
