"""Callbacks that end a run."""

import builtins
import os
import signal
from typing import Any

from lightning.pytorch import Callback


class Terminate(Callback):
    """Sends SIGTERM after so many updates."""

    def __init__(self, update: int = 1) -> None:
        self.update = update

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.update:
            os.kill(os.getpid(), signal.SIGTERM)


class Finalized:
    """Sends SIGTERM when it is deleted, where Python ignores the exception of the handler."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class TerminateFinalizer(Terminate):
    """Sends SIGTERM after so many updates, while an object is deleted."""

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.update:
            Finalized()


class Raise(Callback):
    """Raises a built-in exception after so many updates, before the update is in any checkpoint."""

    def __init__(self, update: int, error: str) -> None:
        self.update, self.error = update, error

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.update:
            raise getattr(builtins, self.error)()
