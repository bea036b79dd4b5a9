"""What ``predict`` leaves behind: pictures or clips, each with a JSON that says how to make it again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from rlr.evaluation.pictures import picture, png
from rlr.io.atomic import write_whole
from rlr.io.video import write_video
from rlr.models.staged import StagedPrompt
from rlr.modules.sampling import Prediction, Sampling


class PredictionWriter(BasePredictionWriter):
    r"""Writes ``00000.png, …``, or ``00000.mp4, …`` of clips, and beside each a JSON with prompt, seed, reward, checkpoint.

    The number is that of the sample in the prompt file, so the files of several processes do not collide.

    Args:
        folder: Where to write, by default ``predictions`` in the trainer's root folder.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(write_interval="batch")
        self.folder = folder

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
        folder = Path(self.folder or Path(trainer.default_root_dir) / "predictions")
        checkpoint = str(trainer.ckpt_path) if trainer.ckpt_path else None
        for i, number in enumerate(prediction.indices):
            facts = {
                "prompt": prediction.prompts[i],
                "seed": prediction.seeds[i],
                "reward": prediction.rewards[i].item(),
                "scores": _scores(pl_module, prediction.rewards[i].item()),
                "checkpoint": checkpoint,
                **_stages(prediction.prompts[i]),
                **(prediction.notes[i] if prediction.notes else {}),
            }
            _write(folder / f"{number:05d}", prediction.samples[i], prediction.fps)
            text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
            write_whole(folder / f"{number:05d}.json", text.encode())


def _write(stem: Path, pixels: Tensor, fps: float | None) -> None:
    """Writes a picture, or with ``fps`` a clip, under its name without the suffix."""
    if fps is None:
        write_whole(stem.with_suffix(".png"), png(picture(pixels)))
    else:
        write_video(stem.with_suffix(".mp4"), pixels, fps)


def _stages(prompt: str) -> dict[str, object]:
    """Returns what a staged prompt says to which steps."""
    if not isinstance(prompt, StagedPrompt):
        return {}
    return {"stages": list(prompt.stages), "starts": list(prompt.starts)}


def _scores(module: LightningModule, score: float) -> dict[str, float]:
    """Returns a score by the reward's name, version included, raw and on its published scales."""
    if not isinstance(module, Sampling):
        return {}
    return module.reward.format(score)
