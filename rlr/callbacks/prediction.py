"""What ``predict`` leaves behind: pictures, each with a JSON that says how to make it again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from rlr.evaluation.pictures import picture, png
from rlr.files import write_whole
from rlr.modules.alignment import Alignment, Prediction


class PredictionWriter(BasePredictionWriter):
    r"""Writes ``00000.png, …`` and beside each a JSON with prompt, seed, reward and checkpoint.

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
            }
            write_whole(folder / f"{number:05d}.png", png(picture(prediction.samples[i])))
            text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
            write_whole(folder / f"{number:05d}.json", text.encode())


def _scores(module: LightningModule, score: float) -> dict[str, float]:
    """Returns a score by the reward's name, version included, raw and on its published scales."""
    if not isinstance(module, Alignment):
        return {}
    label, scales = module.reward.label, module.reward.scales
    return {label: score, **{f"{label} {name}": factor * score for name, factor in scales.items()}}
