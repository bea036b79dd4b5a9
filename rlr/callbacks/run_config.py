"""The config of a run beside its results."""

from pathlib import Path

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from rlr.io.atomic import write_whole


class RunConfig(Callback):
    """Writes the resolved config of a training run when it begins, and passes it to the loggers.

    Args:
        file: The file.
        text: The config.
    """

    def __init__(self, file: Path, text: str) -> None:
        self.file, self.text = file, text

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero:
            write_whole(self.file, self.text.encode())
            for logger in trainer.loggers:
                logger.log_hyperparams(yaml.safe_load(self.text))
