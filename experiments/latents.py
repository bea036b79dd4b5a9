"""A run of DOODL: it optimizes latents of held-out prompts, and trains nothing."""

from collections.abc import Sequence
from contextlib import chdir
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from experiments.base import Row
from experiments.command import Command, release, run_command
from experiments.curve import clock, measured, short
from experiments.settings import ROOT
from rlr.callbacks.prompt_sets import sample_sets
from rlr.evaluation.metrics import Metric, as_metrics
from rlr.evaluation.results import Measurement
from rlr.evaluation.samples import SampleBatch
from rlr.modules.latents.doodl import DOODL
from rlr.modules.sampling import Prediction
from rlr.rewards.base import Reward


class Scores(Callback):
    """Measures samples of optimized latents beside those of the same latents before.

    Seconds are those of the optimization, with the samples before and after it and without their scores.

    Args:
        name: The name of the set of prompts in rows.
        metrics: The metrics and rewards.
    """

    def __init__(self, name: str, metrics: list[Metric | Reward]) -> None:
        self.name = name
        self.before = as_metrics(metrics)
        self.after = [copy(metric) for metric in self.before]
        self.rows: list[Row] = []
        self.seconds, self._began = 0.0, 0.0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (samples,) = sample_sets(trainer, None, "predict").values()
        for metric in (*self.before, *self.after):
            metric.check(samples, video=_doodl(pl_module).chain.model.size.frames is not None)
            metric.to(pl_module.device)
            metric.begin(samples)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._began = clock(pl_module)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.seconds += clock(pl_module) - self._began
        before = beginning(_doodl(pl_module), outputs)
        for metrics, pixels in ((self.before, before), (self.after, outputs.samples)):
            made = SampleBatch(outputs.indices, outputs.prompts, pixels).finite()
            for metric in metrics:
                metric.update(made)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        before, after = ([metric.compute() for metric in metrics] for metrics in (self.before, self.after))
        iterations = _doodl(pl_module).iterations
        # of each latent the sample before, a pair in each iteration, and the sample at the end
        calls = float(before[0].numel() * (2 * iterations + 2))
        self.rows = [
            self._row(before, before, update=0.0, samples=0.0, reward_calls=0.0, step_seconds=0.0),
            self._row(
                before,
                after,
                update=float(iterations),
                samples=calls,
                reward_calls=calls,
                step_seconds=short(self.seconds),
            ),
        ]

    def _row(self, before: Sequence[Tensor], now: Sequence[Tensor], **spent: float) -> Row:
        measurements = [
            Measurement(metric.label, scores, base, dict(metric.scales), metric.higher_is_better)
            for metric, scores, base in zip(self.before, now, before, strict=True)
        ]
        return {**spent, "prompts": self.name, **dict(measured(measurements))}


def _doodl(module: LightningModule) -> DOODL:
    assert isinstance(module, DOODL)
    return module


@torch.no_grad()
def beginning(module: DOODL, prediction: Prediction) -> Tensor:
    r"""Returns the samples of a prediction's latents before their optimization, with shape :math:`(B, *)`."""
    start = module.chain.draw(prediction.seeds)[module.chain.steps]
    end, _ = module.edict.sample(torch.stack([start, start]), module.chain.encode(prediction.prompts))
    return module.chain.model.decode(end)


@dataclass(frozen=True)
class Latents(Command):
    """A run of DOODL, which begins anew after a kill.

    Args:
        method: A config of :class:`~rlr.modules.DOODL` and what differs from it.
        evaluation: The config with prompts and :class:`Scores`.
        seed: Decides the latents.
    """

    @property
    def arguments(self) -> list[str]:
        return ["predict", *self.configuration]

    def run(self, folder: Path, base: Path) -> Sequence[Row]:
        """Optimizes, and returns a row for the latents before and one for those after it; samples stay in the folder."""
        # scores are of all samples, so none is kept
        rmtree(folder / "predictions", ignore_errors=True)
        with chdir(ROOT):
            cli = run_command([*self.arguments, f"--trainer.default_root_dir={folder}"])
            scores = next(c for c in cli.trainer.callbacks if isinstance(c, Scores))  # type: ignore[attr-defined]
        del cli
        release()
        return scores.rows
