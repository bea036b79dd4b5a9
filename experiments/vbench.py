"""Runs that VBench scores: a method samples videos, and the installed package scores them."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from experiments.base import Row, Run
from experiments.command import command_line, method_arguments, release, resume_arguments, run_command, run_folder
from experiments.methods import Method
from experiments.settings import ROOT, Setting
from rlr.cli.vbench.__main__ import main as vbench
from rlr.evaluation.vbench.dimensions import SIX
from rlr.evaluation.vbench.naming import VideoName
from rlr.io.json_file import read_json

NOISES = "--model.init_args.seed=0"
"""All models sample from the same noises, for every training seed."""
AVERAGE = "weighted_average"
"""The column of the weighted average."""


class Videos(ABC):
    """The source of the videos."""

    @property
    @abstractmethod
    def training(self) -> list[str]:
        """The arguments of the ``train.py`` command that runs first, without the folder; empty if there is no such command."""

    @property
    @abstractmethod
    def scoring(self) -> list[str]:
        """The arguments of the following ``python -m rlr.cli.vbench``, without the source of the videos."""

    @abstractmethod
    def make(self, folder: Path) -> list[str]:
        """Runs or resumes the first command in a folder, and returns the arguments for the source of the videos."""


@dataclass(frozen=True)
class Base(Videos):
    """The model before training.

    Args:
        config: A config with this model.
    """

    config: str

    @property
    def training(self) -> list[str]:
        return []

    @property
    def scoring(self) -> list[str]:
        return ["eval", f"--config={self.config}", NOISES]

    def make(self, folder: Path) -> list[str]:
        return []


@dataclass(frozen=True)
class Trained(Videos):
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
        arguments = [f"--config={self.method.config}", *method_arguments(self.method, self.seed)]
        return ["fit", *arguments, f"--trainer.max_steps={self.updates}", "--trainer.limit_val_batches=0"]

    @property
    def scoring(self) -> list[str]:
        return ["eval", NOISES]

    def make(self, folder: Path) -> list[str]:
        run_command([*self.training, f"--trainer.default_root_dir={folder}", *resume_arguments(folder)])
        release()
        return [f"--ckpt={folder / 'last.ckpt'}"]


@dataclass(frozen=True)
class Optimized(Videos):
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
        arguments = [f"--config={self.method.config}", *method_arguments(self.method, self.seed)]
        data = ["--data=VBenchPrompts", "--data.init_args.batch_size=1"]
        return ["predict", *arguments, *data, f"--data.init_args.evaluation_samples={self.samples}"]

    @property
    def scoring(self) -> list[str]:
        return ["score"]

    def make(self, folder: Path) -> list[str]:
        run_command([*self.training, f"--trainer.default_root_dir={folder}"])
        release()
        name_by_prompt(folder / "predictions", folder / "videos")
        return [f"--videos={folder / 'videos'}"]


def name_by_prompt(predictions: Path, videos: Path) -> None:
    """Makes a folder with the videos of a prediction under the names that VBench expects."""
    videos.mkdir(parents=True, exist_ok=True)
    seen: Counter[str] = Counter()
    for record in sorted(predictions.glob("*.json")):
        prompt = read_json(record)["prompt"]
        path = videos / VideoName(prompt, seen[prompt]).file
        path.unlink(missing_ok=True)
        path.hardlink_to(record.with_suffix(".mp4"))
        seen[prompt] += 1


@dataclass(frozen=True)
class VBenchRun:
    """A method with videos that VBench scores.

    Args:
        videos: The source of the videos.
        samples: The number of videos for each prompt.
    """

    videos: Videos
    samples: int

    @property
    def arguments(self) -> list[str]:
        """The arguments of ``python -m rlr.cli.vbench``, without folders."""
        return [*self.videos.scoring, f"--samples={self.samples}"]

    @property
    def command(self) -> str:
        """The command lines."""
        first = [command_line(self.videos.training)] if self.videos.training else []
        return " && ".join([*first, f"python -m rlr.cli.vbench {' '.join(self.arguments)}"])

    def as_run(self, setting: Setting, experiment: str, key: Mapping[str, str | int]) -> Run:
        """Returns the method as a run of an experiment."""
        folder = run_folder(setting, experiment, key, self.command)
        return Run(key, self.command, lambda: self.run(folder, str(key["method"])))

    def run(self, folder: Path, name: str) -> Sequence[Row]:
        """Samples the missing videos, scores them, and returns a row."""
        with chdir(ROOT):
            arguments = [*self.arguments, *self.videos.make(folder), f"--out={folder / 'vbench'}", f"--name={name}"]
            if vbench(arguments):
                raise RuntimeError(f"VBench stopped with a mistake, see its message above; the videos are in {folder}")
        return [scores(folder / "vbench" / "results.json")]


def scores(path: Path) -> Row:
    """Returns the six scores in percent and their weighted average, as a report of VBench holds them."""
    report = read_json(path)
    percent = {dimension.name: float(report["percent"][dimension.name]) for dimension in SIX}
    return {**percent, AVERAGE: float(report[AVERAGE])}
