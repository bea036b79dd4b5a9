"""The checkpoint with the best validation reward."""

import math
import os

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt``, the checkpoint of the validation with the best ``val/reward``.

    Without validation prompts there is no such file.

    Args:
        dirpath: The folder, by default ``trainer.default_root_dir``.
    """

    def __init__(self, dirpath: str | None = None) -> None:
        super().__init__(
            dirpath,
            filename="best",
            monitor="val/reward",
            mode="max",
            save_top_k=1,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.dirpath = self.dirpath or os.path.realpath(trainer.default_root_dir)
        reward = getattr(pl_module, "reward", None)
        if reward is not None and not reward.higher_is_better:
            self.mode, self.kth_value = "min", torch.tensor(math.inf)
        super().setup(trainer, pl_module, stage)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value = trainer.callback_metrics.get("val/reward")
        if value is not None and value.isfinite():
            super().on_validation_end(trainer, pl_module)
