"""What every module does, trained or not: it samples from prompts, and scores its samples."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from rlr.chain import Chain
from rlr.data.stream import PromptBatch
from rlr.modules.objective import Objective
from rlr.modules.shown import shown
from rlr.rewards.base import Reward
from rlr.seeding import Stream, spawn


class Prediction(NamedTuple):
    r"""Samples with what made them.

    Args:
        samples: Pixels in [0, 1], with shape :math:`(B, *)`.
        prompts: The :math:`B` prompts.
        indices: Their numbers in the prompt file.
        seeds: The seed of each one's noise.
        rewards: The rewards, with shape :math:`(B)`.
        fps: Frames a second of clips; None for pictures.
        notes: Further facts of each, as plain data for its file; none by default.
    """

    samples: Tensor
    prompts: list[str]
    indices: list[int]
    seeds: list[int]
    rewards: Tensor
    fps: float | None = None
    notes: Sequence[Mapping[str, Any]] = ()


class Sampling(LightningModule):
    """Samples and scores prompts in ``validate``, ``test`` and ``predict``.

    Args:
        chain: The chain that is sampled from.
        reward: The reward.
        seed: Decides all noise.
    """

    def __init__(self, chain: Chain, reward: Reward, seed: int) -> None:
        super().__init__()
        self.chain = chain
        self.reward = reward.requires_grad_(False)
        self.objective = Objective(chain.model, reward)
        self.seed = seed
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Leaves all parts in eval mode: a replayed step must equal the recorded one, and a score must not vary."""
        super().train(False)
        self.training = mode
        return self

    @torch.no_grad()
    def generate(self, batch: PromptBatch) -> Prediction:
        """Samples and scores a batch, each sample from a seed that follows from its number in the prompt file."""
        seeds = [spawn(self.seed, Stream.EVALUATION, index, 0) for index in batch.indices]
        prompts = list(batch.prompts)
        trajectory = self.chain.sample(prompts, self.chain.draw(seeds))
        samples = self.chain.model.decode(trajectory.states[0])
        rewards = self.objective.rate(samples, prompts)
        self.objective.calls = 0  # evaluation costs are no costs of training
        return Prediction(samples, prompts, list(batch.indices), seeds, rewards, self.chain.model.size.fps)

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> dict[str, Any]:
        """Logs ``val/reward``, and the same by the reward's name."""
        return self._evaluate(batch, "val")

    def test_step(self, batch: PromptBatch, batch_idx: int) -> dict[str, Any]:
        """Logs ``test/reward``, and the same by the reward's name."""
        return self._evaluate(batch, "test")

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> Prediction:
        """Returns the samples; a :class:`~rlr.callbacks.PredictionWriter` writes them."""
        return self.generate(batch)

    def _evaluate(self, batch: PromptBatch, stage: str) -> dict[str, Any]:
        prediction = self.generate(batch)
        self._log(prediction, stage)
        return prediction._asdict()

    def _log(self, prediction: Prediction, stage: str) -> None:
        n = len(prediction.prompts)
        self.log(f"{stage}/reward", prediction.rewards.mean(), sync_dist=True, batch_size=n)
        named = shown(self.reward, prediction.rewards, self.reward.parts)
        self.log_dict({f"{stage}/{k}": v for k, v in named.items()}, prog_bar=True, sync_dist=True, batch_size=n)
