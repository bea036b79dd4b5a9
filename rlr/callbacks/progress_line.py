"""The progress of a command on the terminal, in one line."""

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from rlr.io.terminal import TERMINAL, RemainingTime, counted
from rlr.modules.alignment import Alignment


class ProgressLine(ProgressBar):
    """States update, reward, time for each update and time left.

    A line is ``update 37/200 · PickScore 21.3 (+0.31) · 12 s each · 33 min left``. The reward is its running mean over batches,
    and in parentheses its change since the first batch of this process.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._pace = RemainingTime(None)
        self.first: float | None = None
        """The running mean of the reward after the first batch of this process."""
        self._state: Any = None

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    @property
    def is_enabled(self) -> bool:
        """Whether this process states its progress."""
        return self._enabled

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = trainer.max_steps
        self._pace, self.first = RemainingTime(total if total > 0 else None), None
        self._pace.reached(trainer.global_step)
        self._status(f"update {trainer.global_step + 1}{f'/{total}' if total > 0 else ''}")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        total, done = trainer.max_steps, trainer.global_step
        parts = [f"update {done}{f'/{total}' if total > 0 else ''}", self._reward(pl_module), self._pace.reached(done)]
        self._status(" · ".join(filter(None, parts)))

    def _reward(self, module: LightningModule) -> str:
        running = module.progress.running if isinstance(module, Alignment) else None
        if running is None:
            return ""
        assert isinstance(module, Alignment)
        self.first = running if self.first is None else self.first
        return f"{module.reward.label} {running:.4g} ({running - self.first:+.2g})"

    def _begin(self, what: str, batches: Any) -> None:
        total = sum(batches) if isinstance(batches, list) else batches
        self._state = counted(f"{what}, batch", int(total)) if math.isfinite(total) else None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("validating", trainer.num_val_batches)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("testing", trainer.num_test_batches)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("sampling", trainer.num_predict_batches)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._enabled and self._state:
            self._state(batch_idx + 1)

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def _status(self, text: str) -> None:
        if self._enabled:
            TERMINAL.status(text)
