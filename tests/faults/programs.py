"""The programs that are killed, what continues them, and what they must leave in the end."""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from rlr.callbacks import SafeCheckpointIO
from rlr.cli import main
from tests.cli.conftest import CONFIG
from tests.cli.test_export import SD
from tests.cli.vbench.test_generation import make
from tests.evaluation.vbench.toy import CONFIG as CLIPS
from tests.evaluation.vbench.toy import write_info
from tests.faults.moments import Moments
from tests.models.random_sd import write_random_sd

TIMES = ("seconds", "time", "samples_per_second", "date", "path", "folder", "root", "memory")
"""Parts of the names of what differs from run to run."""


class Program(ABC):
    """A command, in a folder of its own.

    Args:
        shared: A folder with what all its runs share, such as a trained model.
    """

    name: ClassVar[str]
    moments: ClassVar[Moments] = Moments()

    def __init__(self, shared: Path) -> None:
        self.shared = shared / self.name.replace(" ", "_")
        self.shared.mkdir(exist_ok=True)

    def prepare(self) -> None:  # noqa: B027 - a hook
        """Makes what all runs share."""

    @abstractmethod
    def run(self, folder: Path) -> None:
        """Runs the command."""

    def go_on(self, folder: Path) -> None:
        """Continues after the signal; by default with the same command."""
        self.run(folder)

    @abstractmethod
    def left(self, folder: Path) -> Any:
        """Returns what the command left, without what differs from run to run."""


def written(folder: Path, text: str) -> str:
    """Returns the path of a config in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(text)
    return str(folder / "config.yaml")


class Training(Program):
    """``train.py fit`` with a checkpoint after every update; after the signal, ``--resume`` where there is a checkpoint."""

    name = "training"

    def options(self, folder: Path) -> Sequence[str]:
        """Returns further options for a run in a folder."""
        return ()

    def run(self, folder: Path) -> None:
        keep = "\n  callbacks: [{class_path: Checkpointing, init_args: {every: 1}}, {class_path: EMA, init_args: {decay: 0.5}}]\n"
        config = written(folder, CONFIG.rstrip() + keep)
        main(["fit", f"--config={config}", f"--trainer.default_root_dir={folder / 'out'}", *self.options(folder)])

    def go_on(self, folder: Path) -> None:
        if (folder / "out" / "last.ckpt").exists():
            main(["fit", str(folder / "out"), "--resume"])
        else:
            self.run(folder)

    def left(self, folder: Path) -> Any:
        out = folder / "out"
        checkpoint = torch.load(out / "last.ckpt", weights_only=True)
        rows = [row for row in csv.DictReader((out / "metrics.csv").open()) if row["reward/mean"]]
        # columns of what is logged between updates are empty in the rows of updates
        rows = [{name: value for name, value in row.items() if value} for row in rows]
        kept = {name: checkpoint[name] for name in ("state_dict", "optimizer_states", "alignment", "global_step")}
        average = [state["average"] for name, state in checkpoint["callbacks"].items() if "EMA" in name]
        return plain({**kept, "average": average, "rows": rows})


class Saving(Training):
    """The same, with signals only while a checkpoint is written."""

    name = "writing a checkpoint"
    moments = Moments(within=SafeCheckpointIO.save_checkpoint.__qualname__)


class Evaluation(Program):
    """``train.py test`` of a run with results of base and aligned model."""

    name = "evaluation"
    command: ClassVar[str] = "test"
    data: ClassVar[str] = "val: [four, five]\n    test: [six, seven, zero]"

    def prepare(self) -> None:
        config = written(self.shared, CONFIG.replace("val: [four, five]", self.data))
        main(["fit", f"--config={config}", f"--trainer.default_root_dir={self.shared / 'run'}"])

    def run(self, folder: Path) -> None:
        config, checkpoint = self.shared / "config.yaml", self.shared / "run" / "last.ckpt"
        place = f"--trainer.default_root_dir={folder / 'out'}"
        main([self.command, f"--config={config}", f"--ckpt_path={checkpoint}", place])

    def left(self, folder: Path) -> Any:
        (results,) = (folder / "out").rglob("results.json")
        return plain(json.loads(results.read_text()))


class Prediction(Evaluation):
    """``train.py predict``, whose files are those of an uninterrupted run byte for byte."""

    name = "prediction"
    command = "predict"
    data = "predict: [four, five, six]\n    evaluation_samples: 2"

    def left(self, folder: Path) -> Any:
        return {path.name: path.read_bytes() for path in (folder / "out").rglob("*.png")}


class VBenchSampling(Program):
    """The videos of ``rlr.cli.vbench eval``."""

    name = "VBench sampling"

    def prepare(self) -> None:
        config = written(self.shared, CLIPS)
        main(
            ["fit", f"--config={config}", "--trainer.max_steps=2", f"--trainer.default_root_dir={self.shared / 'run'}"]
        )
        write_info(self.shared / "info.json")

    def run(self, folder: Path) -> None:
        make(self.shared / "run", self.shared / "info.json", folder, batch=2)

    def left(self, folder: Path) -> Any:
        return {path.name: path.read_bytes() for path in (folder / "videos").glob("*.mp4")}


class Export(Program):
    """``train.py export`` of a LoRA of a random Stable Diffusion, verified in diffusers."""

    name = "export"

    def prepare(self) -> None:
        model = write_random_sd(self.shared / "model")
        config = written(self.shared, SD.format(path=model, root=self.shared / "run"))
        main(["fit", f"--config={config}"])

    def run(self, folder: Path) -> None:
        config, checkpoint = self.shared / "config.yaml", self.shared / "run" / "last.ckpt"
        # the folder must be new or empty: what a killed export left is not there
        main(
            [
                "export",
                f"--config={config}",
                "--exporter=Merged",
                f"--folder={folder / 'out'}",
                f"--ckpt_path={checkpoint}",
            ]
        )

    def go_on(self, folder: Path) -> None:
        # a folder that is there is whole, and is refused; what a killed export left is not there
        if not (folder / "out").exists():
            self.run(folder)

    def left(self, folder: Path) -> Any:
        return {str(p.relative_to(folder)): p.read_bytes() for p in (folder / "out").rglob("*.safetensors")}


PROGRAMS: tuple[Callable[[Path], Program], ...] = (Training, Saving, Evaluation, Prediction, VBenchSampling, Export)


def plain(value: Any) -> Any:
    """Returns nested values with tensors as bytes, without what differs from run to run."""
    if isinstance(value, torch.Tensor):
        return value.contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else value.item()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if not any(part in str(name) for part in TIMES)}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
