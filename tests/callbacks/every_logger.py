"""All loggers at once, none of which reaches a network."""

from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger


def every_logger(folder: Path, patch: pytest.MonkeyPatch) -> list[Logger]:
    """Returns a logger of each kind that writes to a folder."""
    patch.setenv("WANDB_MODE", "offline")
    patch.setenv("WANDB_SILENT", "true")
    for place in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        patch.setenv(f"WANDB_{place}_DIR", str(folder / "wandb_own"))
    return [
        WandbLogger("run", folder),
        TensorBoardLogger(folder, "board"),
        CSVLogger(folder, "table"),
        DummyLogger(),
    ]
