"""The gradient that an alignment follows: its chain, its reward, and the batches of its training prompts."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import chain as joined
from itertools import groupby, repeat
from math import gcd
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from rlr.analysis.problem import Batch, Estimand
from rlr.estimators.base import Estimator
from rlr.modules.alignment import Alignment
from rlr.seeding import Stream, spawn


class TrainingGradient(Estimand):
    r"""The gradient of an alignment's reward at its present weights, without its penalty.

    Batch :math:`k` has the prompts of the :math:`k`-th training batch, and noises of its own seed: those of no training run.

    Args:
        module: The alignment, on its device.
        data: The prompts.
        seed: Decides all noise.
        precision: Returns the context in which the model computes, such as autocast.
    """

    def __init__(
        self,
        module: Alignment,
        data: LightningDataModule,
        seed: int = 0,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.module, self.seed, self.precision = module, seed, precision
        self.chain = module.chain
        data.prepare_data()
        data.setup("fit")
        # a stream continues where its last pass ended
        self._stream: Iterator[Any] = joined.from_iterable(repeat(data.train_dataloader()))
        self._prompts: list[list[str]] = []
        self._initialize_statistics()

    @property
    def differentiable(self) -> bool:
        """Whether the reward has a gradient."""
        return self.module.reward.differentiable

    @property
    def batch_size(self) -> int:
        """The number :math:`B` of samples in a batch."""
        return len(self._batch_prompts(0))

    @property
    def samples_per_prompt(self) -> int:
        """The largest number that divides the lengths of all runs of equal prompts in a batch."""
        return gcd(*(len(list(run)) for _, run in groupby(self._batch_prompts(0))))

    @property
    def size(self) -> int:
        r"""The number :math:`d` of trained weights."""
        return sum(weight.numel() for weight in self.module.weights)

    def batch(self, number: int) -> Batch:
        prompts, seed = self._batch_prompts(number), spawn(self.seed, Stream.EXPERIMENT, number)
        noises = self.chain.draw([spawn(seed, Stream.SAMPLE, i) for i in range(len(prompts))])
        objective = self.module.objective.of_frames(spawn(seed, Stream.FRAMES))
        return Batch(prompts, noises, objective, spawn(seed, Stream.ROLLOUT))

    def saving(self) -> AbstractContextManager[object]:
        return self.module.updater.memory.saving(self.module.parameters(), self.module.device)

    def estimate(self, estimator: Estimator, number: int) -> Tensor:
        with ExitStack() as stack:
            stack.enter_context(self.precision())
            return super().estimate(estimator, number)

    def _batch_prompts(self, number: int) -> list[str]:
        while len(self._prompts) <= number:
            self._prompts.append(list(next(self._stream).prompts))
        return self._prompts[number]

    def _initialize_statistics(self) -> None:
        """Gives a reward that scales by running statistics those of one batch, as a training does."""
        if self.module.reward.statistics():
            with torch.no_grad(), self.precision():
                self.module.reward.update_statistics(self.rollout(0).scores)
