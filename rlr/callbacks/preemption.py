"""SIGTERM in a job of several processes, by which a cluster takes a machine away."""

import signal
import threading
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from rlr.distributed import any_rank


class Preemption(Callback):
    """Ends training of several processes at the same batch, whichever of them SIGTERM reaches, and whenever.

    Lightning answers the signal with an exchange between processes, wherever each of them is; it may meet the exchange of
    a gradient, and the job waits until it is killed. Here the signal is noted, and before the next batch all processes
    state whether they have one. :class:`~rlr.callbacks.Checkpointing` then writes the state after the last batch. A
    single process ends at once and needs none of this.

    Raises:
        SIGTERMException: On all processes, before a batch, once one has the signal.
    """

    def __init__(self) -> None:
        self.received = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning restores the handlers from before `fit` itself
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            self.received = False
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: Any) -> None:
        self.received = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.world_size > 1 and any_rank(self.received):
            raise SIGTERMException
