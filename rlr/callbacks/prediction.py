"""Files of ``predict``: images or videos, each with a JSON that says how to make it again."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from rlr.callbacks.ema import EMA
from rlr.callbacks.origin import claim
from rlr.callbacks.sample_files import suffix, write_sample
from rlr.data.prompts import PromptData
from rlr.evaluation.provenance import identity
from rlr.io.hub import checksum
from rlr.io.json_file import read_json, write_json
from rlr.io.shape import NUMBER, Shape, check_shape
from rlr.io.text import quote
from rlr.io.video import write_video
from rlr.models.staged import StagedPrompt
from rlr.modules.sampling import Prediction, Sampling, finite

SIDECAR: Shape = {"prompt": str, "reward": (None, NUMBER)}
"""What the JSON beside a sample must look like."""


class PredictionWriter(BasePredictionWriter):
    r"""Writes ``00000.png, …``, or ``00000.mp4, …`` of videos, and beside each a JSON with prompt, seed, reward, checkpoint.

    The number is that of the sample in the prompt file, so the files of several processes do not collide. A sample that is not
    finite has a JSON without a reward, and no image or video.

    With :attr:`settings`, which the command line sets, an interrupted prediction goes on: ``origin.json`` states what the samples
    are made with, those that are whole stay, and the folder is then, to the byte, that of an uninterrupted prediction.

    Args:
        folder: Where to write, by default ``predictions/last`` in the root folder of the trainer, with the name of the checkpoint;
            without a checkpoint ``predictions``.
    """

    remedy = "set another folder with --trainer.callbacks+=PredictionWriter --trainer.callbacks.folder=FOLDER"
    """How to choose another folder."""

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(write_interval="batch")
        self.folder = folder
        self.settings: Mapping[str, Any] | None = None
        """The settings that samples follow from, as plain data; None where they are not known, and all samples are made."""

    def place(self, trainer: Trainer) -> Path:
        """Returns the folder of the predictions of the trainer's checkpoint."""
        name = Path(str(trainer.ckpt_path)).stem if trainer.ckpt_path else ""
        return Path(self.folder or Path(trainer.default_root_dir) / "predictions" / name)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks for the samples that are there already.

        Raises:
            ValueError: If there are samples that were made with other settings.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        if self.settings is None or not isinstance(data, PromptData):
            return
        try:
            own = self.facts(pl_module, data)
        except LookupError:
            # the code of the reward is not known, so its scores may be others now
            return
        path, averaged = trainer.ckpt_path, any(isinstance(c, EMA) for c in trainer.callbacks)  # type: ignore[attr-defined]
        made = {"checkpoint": checksum(Path(path)) if path and Path(path).is_file() else path, "average": averaged}
        claim(self.place(trainer), {**made, **self.settings, **own}, self.remedy)
        data.finished = self.finished(self.place(trainer), data)

    def facts(self, module: LightningModule, data: PromptData) -> dict[str, Any]:
        """Returns what the files depend on besides the settings, as plain data.

        Raises:
            LookupError: If that is not known.
        """
        code = identity(module.reward) if isinstance(module, Sampling) else None
        return {"evaluation_samples": data.evaluation_samples, "code of the reward": code}

    def finished(self, folder: Path, data: PromptData) -> Callable[[str, int], bool]:
        """Returns whether a sample, given by its prompt and index, is whole in a folder.

        Raises:
            ValueError: If a sample there is of another prompt.
        """
        prompts = data.read("predict")
        whole = set()
        for file in folder.glob("[0-9]*.json"):
            if not re.fullmatch("[0-9]{1,12}", file.stem):
                continue
            index, record = int(file.stem), read_json(file)
            check_shape(record, SIDECAR, str(file), self.remedy)
            i = index // data.evaluation_samples
            if i < len(prompts) and "prompt" in record:
                self._check(file, record, prompts[i])
                whole |= {index} if record.get("reward") is None or any(map(Path.is_file, _media(file))) else set()
        return lambda prompt, index: index in whole

    def _check(self, file: Path, record: Mapping[str, Any], prompt: str) -> None:
        was, now = record.get("stages"), _stages(prompt).get("stages")
        if (record["prompt"], was) != (prompt, now):
            stages = f" in the stages {was or 'none'}, which are {now or 'none'} now" if was != now else ""
            raise ValueError(
                f"{file}: expected a sample of {quote(prompt)}, the prompt of this number, found one of "
                f"{quote(record['prompt'])}{stages}; {self.remedy}, or delete the folder"
            )

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Prediction,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        for i, (prompt, index) in enumerate(zip(prediction.prompts, prediction.indices, strict=True)):
            if not isinstance(data, PromptData) or not data.finished(prompt, index):
                self.write(trainer, pl_module, prediction, i)

    def write(self, trainer: Trainer, module: LightningModule, prediction: Prediction, i: int) -> None:
        """Writes the files of sample ``i`` of a prediction, the JSON last."""
        stem, reward = self.place(trainer) / f"{prediction.indices[i]:05d}", prediction.rewards[i].item()
        facts = {
            "prompt": prediction.prompts[i],
            "seed": prediction.seeds[i],
            "reward": reward,
            "scores": module.reward.format(reward) if isinstance(module, Sampling) else {},
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            **_stages(prediction.prompts[i]),
            **(prediction.notes[i] if prediction.notes else {}),
        }
        if finite(prediction.samples[i : i + 1]).item():
            _write(stem, prediction.samples[i], prediction.fps)
        write_json(stem.with_suffix(".json"), facts)


def _write(stem: Path, pixels: Tensor, fps: float | None) -> None:
    """Writes a sample with the pixels that it has; the files of an evaluation pad videos of odd size instead."""
    if fps is None:
        write_sample(stem, pixels, None)
    else:
        write_video(stem.with_suffix(suffix(fps)), pixels, fps)


def _media(file: Path) -> list[Path]:
    return [file.with_suffix(suffix(fps)) for fps in (None, 1.0)]


def _stages(prompt: str) -> dict[str, object]:
    """Returns the stages of a staged prompt and the steps at which they start."""
    if not isinstance(prompt, StagedPrompt):
        return {}
    return {"stages": list(prompt.stages), "starts": list(prompt.starts)}
