"""Evaluations of a training run on held-out prompts, with what the training has cost by then."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from experiments.base import Row
from experiments.settings import cpu_seconds
from rlr.callbacks.evaluation import Evaluation, Listener
from rlr.evaluation.results import Measurement, Results
from rlr.evaluation.statistics import Comparison
from rlr.modules.alignment import Alignment

DIGITS = 6
"""Significant digits of a number in a row."""


class Points(Evaluation):
    """An evaluation before training and after given numbers of updates.

    Args:
        updates: These numbers; the last is that of the whole run.
        options: As in :class:`~rlr.callbacks.Evaluation`, but for ``every``.
    """

    def __init__(self, updates: Sequence[int], **options: Any) -> None:
        super().__init__(every=0, **options)
        self.updates = updates

    def due(self, before: int, update: int) -> bool:
        return any(before < point <= update for point in self.updates)


class Curve(Callback, Listener):
    """Keeps a row for every evaluation; listed before the callback that evaluates, it leaves out the time of evaluations.

    Rows are part of the checkpoint, so those of a resumed run are complete. Seconds are CPU seconds on a CPU, and those of
    the wall on a GPU.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.seconds = 0.0
        """The seconds of the training steps, without any evaluation."""
        self._began = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self._began = clock(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self.seconds += clock(pl_module) - self._began

    def on_evaluation(self, trainer: Trainer, pl_module: LightningModule, results: Results) -> None:
        assert isinstance(pl_module, Alignment)
        progress = pl_module.progress
        spent: Row = {
            "update": float(trainer.global_step),
            "samples": float(progress.samples),
            "reward_calls": float(progress.reward_calls),
            "step_seconds": short(self.seconds),
        }
        for name, measurements in results.sets.items():
            self.rows.append({**spent, "prompts": name, **dict(measured(measurements))})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.seconds = list(state_dict["rows"]), state_dict["seconds"]


def measured(measurements: Sequence[Measurement]) -> Iterator[tuple[str, float]]:
    """Yields, on the published scale, each score and, beside a base model, the difference with its interval."""
    for measurement in measurements:
        value, (label, factor) = measurement.value, measurement.published
        if isinstance(value, Comparison):
            yield label, short(factor * value.aligned)
            yield f"{label} gain", short(factor * value.difference)
            yield f"{label} low", short(factor * value.low)
            yield f"{label} high", short(factor * value.high)
        else:
            yield label, short(factor * value.mean)


def short(number: float) -> float:
    """Returns a number as rows have it."""
    return float(f"{number:.{DIGITS}g}")


def clock(module: LightningModule) -> float:
    """Returns the CPU seconds on a CPU, and those of the wall on a GPU once it has finished its work."""
    if module.device.type != "cuda":
        return cpu_seconds()
    torch.cuda.synchronize(module.device)
    return time.perf_counter()
