"""VBench's scores of a method as a cell: it samples videos, and the installed package scores them."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from experiments.base import Cell, Row
from experiments.command import called, chosen, place, recipe, release, resumed
from experiments.methods import Method
from experiments.scales import ROOT, Scale
from rlr.cli.vbench.__main__ import main as vbench
from rlr.evaluation.vbench.dimensions import SIX
from rlr.evaluation.vbench.naming import VideoName

NOISES = "--model.init_args.seed=0"
"""All models sample from the same noises, for every training seed."""
AVERAGE = "weighted_average"
"""The column of the weighted average."""


class Clips(ABC):
    """The source of the videos."""

    @property
    @abstractmethod
    def training(self) -> list[str]:
        """The arguments of the ``train.py`` command that runs first, without the folder; empty if there is no such command."""

    @property
    @abstractmethod
    def judging(self) -> list[str]:
        """The arguments of the following ``python -m rlr.cli.vbench``, without the source of the videos."""

    @abstractmethod
    def make(self, folder: Path) -> list[str]:
        """Runs or resumes the first command in a folder, and returns the arguments for the source of the videos."""


@dataclass(frozen=True)
class Base(Clips):
    """The model before training.

    Args:
        config: A config with this model.
    """

    config: str

    @property
    def training(self) -> list[str]:
        return []

    @property
    def judging(self) -> list[str]:
        return ["eval", f"--config={self.config}", NOISES]

    def make(self, folder: Path) -> list[str]:
        return []


@dataclass(frozen=True)
class Trained(Clips):
    """The model after training.

    Args:
        method: How to train.
        seed: Decides noises, training prompts and their order.
        updates: How many updates.
    """

    method: Method
    seed: int
    updates: int

    @property
    def training(self) -> list[str]:
        words = [f"--config={self.method.config}", *chosen(self.method, self.seed)]
        return ["fit", *words, f"--trainer.max_steps={self.updates}", "--trainer.limit_val_batches=0"]

    @property
    def judging(self) -> list[str]:
        return ["eval", NOISES]

    def make(self, folder: Path) -> list[str]:
        called([*self.training, f"--trainer.default_root_dir={folder}", *resumed(folder)])
        release()
        return [f"--ckpt={folder / 'last.ckpt'}"]


@dataclass(frozen=True)
class Optimised(Clips):
    """The model with optimized latents.

    Args:
        method: A config of :class:`~rlr.modules.DOODL` and what differs from it.
        seed: Decides the latents.
        samples: The number of videos for each of VBench's prompts.
    """

    method: Method
    seed: int
    samples: int

    @property
    def training(self) -> list[str]:
        words = [f"--config={self.method.config}", *chosen(self.method, self.seed)]
        data = ["--data=VBenchPrompts", "--data.init_args.batch_size=1"]
        return ["predict", *words, *data, f"--data.init_args.evaluation_samples={self.samples}"]

    @property
    def judging(self) -> list[str]:
        return ["score"]

    def make(self, folder: Path) -> list[str]:
        called([*self.training, f"--trainer.default_root_dir={folder}"])
        release()
        call_by_prompt(folder / "predictions", folder / "videos")
        return [f"--videos={folder / 'videos'}"]


def call_by_prompt(predictions: Path, videos: Path) -> None:
    """Makes a folder with the videos of a prediction under the names that VBench expects."""
    videos.mkdir(parents=True, exist_ok=True)
    seen: Counter[str] = Counter()
    for story in sorted(predictions.glob("*.json")):
        prompt = json.loads(story.read_text(encoding="utf-8"))["prompt"]
        path = videos / VideoName(prompt, seen[prompt]).file
        path.unlink(missing_ok=True)
        path.hardlink_to(story.with_suffix(".mp4"))
        seen[prompt] += 1


@dataclass(frozen=True)
class Judged:
    """A method whose videos VBench scores.

    Args:
        clips: What is judged.
        samples: The number of videos for each prompt.
    """

    clips: Clips
    samples: int

    @property
    def words(self) -> list[str]:
        """The arguments of ``python -m rlr.cli.vbench``, without folders."""
        return [*self.clips.judging, f"--samples={self.samples}"]

    @property
    def recipe(self) -> str:
        """The commands."""
        first = [recipe(self.clips.training)] if self.clips.training else []
        return " && ".join([*first, f"python -m rlr.cli.vbench {' '.join(self.words)}"])

    def cell(self, scale: Scale, experiment: str, key: Mapping[str, str | int]) -> Cell:
        """Returns the method as a cell of an experiment."""
        folder = place(scale, experiment, key, self.recipe)
        return Cell(key, self.recipe, lambda: self.run(folder, str(key["method"])))

    def run(self, folder: Path, name: str) -> Sequence[Row]:
        """Samples the missing videos, scores them, and returns a row."""
        with chdir(ROOT):
            words = [*self.words, *self.clips.make(folder), f"--out={folder / 'vbench'}", f"--name={name}"]
            if vbench(words):
                raise RuntimeError(f"VBench stopped with a mistake, see its message above; the videos are in {folder}")
        return [scores(folder / "vbench" / "results.json")]


def scores(path: Path) -> Row:
    """Returns the six scores in percent and their weighted average, as a report of VBench holds them."""
    report = json.loads(path.read_text(encoding="utf-8"))
    percent = {dimension.name: float(report["percent"][dimension.name]) for dimension in SIX}
    return {**percent, AVERAGE: float(report[AVERAGE])}
