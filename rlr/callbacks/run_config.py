"""The config of a run beside its results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from rlr.io.atomic import write_whole


class RunConfig(Callback):
    """Writes the resolved config of a training run when it begins, and passes it to the loggers.

    Args:
        file: The file.
        text: The config.
        facts: What runs are filtered and grouped by, in short; the loggers get it beside the config.
    """

    def __init__(self, file: Path, text: str, facts: Mapping[str, Any] | None = None) -> None:
        self.file, self.text, self.facts = file, text, dict(facts or {})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero:
            write_whole(self.file, self.text.encode())
            for logger in trainer.loggers:
                logger.log_hyperparams({**yaml.safe_load(self.text), **self.facts})
