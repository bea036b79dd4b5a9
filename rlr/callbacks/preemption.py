"""SIGTERM, by which a cluster takes a machine away."""

import signal
import threading
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from rlr.distributed import any_rank

TERMINATED = threading.Event()
"""Set when this process has got SIGTERM."""


class Preemption(Callback):
    """Ends training of several processes at the same batch, whichever of them SIGTERM reaches, and whenever.

    Lightning answers the signal with an exchange between processes, wherever each of them is; it may meet the exchange of
    a gradient, and the job waits until it is killed. Here the signal is noted, and before the next batch all processes
    state whether they have one. :class:`~rlr.callbacks.Checkpointing` then writes the state after the last batch. A
    single process ends at once, by an exception; where Python ignores it, as in a finalizer, it ends before the next batch.

    Raises:
        SIGTERMException: On all processes, before a batch, once one has the signal.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning restores the handlers from before `fit` itself
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            TERMINATED.clear()
            signal.signal(signal.SIGTERM, lambda *_: TERMINATED.set())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if any_rank(TERMINATED.is_set()):
            raise SIGTERMException
