"""Files of ``predict``: images or videos, each with a JSON that says how to make it again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from rlr.evaluation.images import png, to_image
from rlr.evaluation.results import plain
from rlr.io.atomic import write_whole
from rlr.io.video import write_video
from rlr.models.staged import StagedPrompt
from rlr.modules.sampling import Prediction, Sampling, finite


class PredictionWriter(BasePredictionWriter):
    r"""Writes ``00000.png, …``, or ``00000.mp4, …`` of videos, and beside each a JSON with prompt, seed, reward, checkpoint.

    The number is that of the sample in the prompt file, so the files of several processes do not collide. A sample that is not
    finite has a JSON without a reward, and no image or video.

    Args:
        folder: Where to write, by default ``predictions/last`` in the root folder of the trainer, with the name of the checkpoint;
            without a checkpoint ``predictions``.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(write_interval="batch")
        self.folder = folder

    def place(self, trainer: Trainer) -> Path:
        """Returns the folder of the predictions of the trainer's checkpoint."""
        name = Path(str(trainer.ckpt_path)).stem if trainer.ckpt_path else ""
        return Path(self.folder or Path(trainer.default_root_dir) / "predictions" / name)

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
        checkpoint, folder = str(trainer.ckpt_path) if trainer.ckpt_path else None, self.place(trainer)
        for i, number in enumerate(prediction.indices):
            reward = prediction.rewards[i].item()
            facts = {
                "prompt": prediction.prompts[i],
                "seed": prediction.seeds[i],
                "reward": reward,
                "scores": pl_module.reward.format(reward) if isinstance(pl_module, Sampling) else {},
                "checkpoint": checkpoint,
                **_stages(prediction.prompts[i]),
                **(prediction.notes[i] if prediction.notes else {}),
            }
            if finite(prediction.samples[i : i + 1]).item():
                write_sample(folder / f"{number:05d}", prediction.samples[i], prediction.fps)
            text = json.dumps(plain(facts), indent=2, ensure_ascii=False) + "\n"
            write_whole(folder / f"{number:05d}.json", text.encode())


def write_sample(stem: Path, pixels: Tensor, fps: float | None) -> None:
    """Writes an image, or with ``fps`` a video, under its name without the suffix."""
    if fps is None:
        write_whole(stem.with_suffix(".png"), png(to_image(pixels)))
    else:
        write_video(stem.with_suffix(".mp4"), pixels, fps)


def _stages(prompt: str) -> dict[str, object]:
    """Returns the stages of a staged prompt and the steps at which they start."""
    if not isinstance(prompt, StagedPrompt):
        return {}
    return {"stages": list(prompt.stages), "starts": list(prompt.starts)}
