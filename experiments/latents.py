"""DOODL as a cell: latents of held-out prompts are optimised, and nothing is trained."""

from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from experiments.base import Row
from experiments.command import Command, called, release
from experiments.curve import clock, measured, short
from experiments.scales import ROOT
from rlr.evaluation.measure import distinct, measure_pixels
from rlr.evaluation.results import Measurement
from rlr.modules.latents.doodl import DOODL
from rlr.modules.sampling import Prediction
from rlr.rewards.base import Reward


class Scores(Callback):
    """Scores samples of optimised latents beside those of the same latents before.

    Seconds are those of the optimisation, with the samples before and after it and without their scores.

    Args:
        name: What the set of prompts is called in rows.
        rewards: What to score with.
    """

    def __init__(self, name: str, rewards: list[Reward]) -> None:
        self.name, self.rewards = name, distinct(rewards)
        self.rows: list[Row] = []
        self.seconds, self._began = 0.0, 0.0
        self._scores: dict[str, list[tuple[Tensor, Tensor]]] = {reward.label: [] for reward in self.rewards}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DOODL)
        for reward in self.rewards:
            reward.check(video=pl_module.chain.model.size.frames is not None)
            reward.to(pl_module.device)

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
        assert isinstance(pl_module, DOODL)
        self.seconds += clock(pl_module) - self._began
        before = beginning(pl_module, outputs)
        for reward in self.rewards:
            pair = (measure_pixels(reward, pixels, outputs.prompts) for pixels in (before, outputs.samples))
            self._scores[reward.label].append((next(pair), next(pair)))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DOODL)
        count = sum(len(before) for before, _ in self._scores[self.rewards[0].label])
        # of each latent the sample before, a pair in each iteration, and the sample at the end
        calls = float(count * (2 * pl_module.iterations + 2))
        self.rows = [
            self._row(False, update=0.0, samples=0.0, reward_calls=0.0, step_seconds=0.0),
            self._row(
                True,
                update=float(pl_module.iterations),
                samples=calls,
                reward_calls=calls,
                step_seconds=short(self.seconds),
            ),
        ]

    def _row(self, moved: bool, **spent: float) -> Row:
        measurements = [self._measurement(reward, moved) for reward in self.rewards]
        return {**spent, "prompts": self.name, **dict(measured(measurements))}

    def _measurement(self, reward: Reward, moved: bool) -> Measurement:
        before, after = (torch.cat(scores)[:, None] for scores in zip(*self._scores[reward.label], strict=True))
        return Measurement(
            reward.label, after if moved else before, before, dict(reward.scales), reward.higher_is_better
        )


@torch.no_grad()
def beginning(module: DOODL, prediction: Prediction) -> Tensor:
    r"""Returns the samples of a prediction's latents before their optimisation, with shape :math:`(B, *)`."""
    start = module.chain.draw(prediction.seeds)[module.chain.steps]
    end, _ = module.edict.sample(torch.stack([start, start]), module.chain.encode(prediction.prompts))
    return module.chain.model.decode(end)


@dataclass(frozen=True)
class Latents(Command):
    """A run of DOODL, which begins anew after a kill.

    Args:
        method: A config of :class:`~rlr.modules.DOODL` and what differs from it.
        layer: The config with prompts and :class:`Scores`.
        seed: Decides the latents.
    """

    @property
    def words(self) -> list[str]:
        return ["predict", *self.settings]

    def run(self, folder: Path, base: Path) -> Sequence[Row]:
        """Optimises, and returns a row for the latents before and one for those after it; samples stay in the folder."""
        with chdir(ROOT):
            cli = called([*self.words, f"--trainer.default_root_dir={folder}"])
            scores = next(c for c in cli.trainer.callbacks if isinstance(c, Scores))  # type: ignore[attr-defined]
        del cli
        release()
        return scores.rows
