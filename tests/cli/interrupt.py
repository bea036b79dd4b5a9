"""A callback that ends its own process as a cluster's scheduler does."""

import os
import signal
from typing import Any

from lightning.pytorch import Callback


class Terminate(Callback):
    """Sends SIGTERM after an update."""

    def on_train_batch_end(self, *args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
