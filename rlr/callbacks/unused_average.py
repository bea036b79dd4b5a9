"""A checkpoint's average of the weights that nobody asks for."""

import warnings
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from rlr.callbacks.ema import EMA


class UnusedAverage(Callback):
    """Warns where a checkpoint holds an average of the weights and the run has no :class:`~rlr.callbacks.EMA` for it.

    That happens where a second config replaces the list of callbacks of the first.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        taken = {callback.state_key for callback in trainer.callbacks if isinstance(callback, EMA)}  # type: ignore[attr-defined]
        kept = checkpoint.get("callbacks", {})
        if not taken and kept.get(EMA().state_key, {}).get("average"):
            warnings.warn(
                f"{trainer.ckpt_path} holds an average of the weights, and no EMA among the callbacks takes it, so the trained "
                "weights themselves are used; add EMA to trainer.callbacks (--trainer.callbacks+=EMA) to use the average",
                stacklevel=2,
            )
