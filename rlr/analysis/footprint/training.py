"""The most memory that a round of training takes, beyond the frozen weights, by estimator."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor

from rlr.analysis.footprint.fake import Fake
from rlr.analysis.footprint.passes import Function, passes
from rlr.analysis.footprint.placeholder import Allocator, PlaceholderModel, PlaceholderObjective, RealBytes, Work
from rlr.analysis.measure import Storages
from rlr.chain import Chain
from rlr.estimators.base import Estimator, no_terms
from rlr.estimators.divergence import Penalty
from rlr.models.base import Condition, DiffusionModel
from rlr.modules.gradients import GradientAccumulator
from rlr.modules.memory import Memory
from rlr.modules.optimization import Optimization
from rlr.objective import Objective
from rlr.rewards.base import Reward
from rlr.samplers import Sampler
from rlr.seeding import Stream, spawn
from rlr.storage import StoredLatents

PROMPT = "a photo"
UPDATES = 2
"""How many updates of a round are made; later ones take no more."""
UPDATES_OF_RUN = 10**6
"""A number of updates for a schedule of the learning rate, which takes no memory."""


@dataclass(frozen=True)
class Peak:
    """The most bytes at once.

    Args:
        device: On the device.
        waiting: In the CPU's memory, where activations wait there.
    """

    device: int
    waiting: int = 0


@dataclass(frozen=True)
class Training:
    """What trains, besides the estimator.

    Args:
        model: The model, with tensors without content.
        reward: The reward, with tensors without content.
        sampler: The sampler.
        batch: The number :math:`B` of samples of a batch.
        fake: Makes the tensors without content.
        optimization: How the weights change.
        penalty: The penalty, or None.
        prompt: A prompt that the model knows.
        uncounted: What could not be counted, with the reason.
    """

    model: DiffusionModel
    reward: Reward
    sampler: Sampler
    batch: int
    fake: Fake
    optimization: Optimization = field(default_factory=Optimization)
    penalty: Penalty | None = None
    prompt: str = PROMPT
    uncounted: list[str] = field(default_factory=list)

    @cached_property
    def encoded(self) -> tuple[Condition, int]:
        """The condition of a batch, and the most bytes of encoding a prompt."""
        with self.fake.active(), torch.no_grad(), Storages() as storages:
            condition = self.model.encode([self.prompt] * self.batch)
        return condition, storages.peak

    @cached_property
    def denoiser(self) -> Work:
        """The passes of the denoiser, in the middle of the chain."""
        grid, condition = Chain(self.model, self.sampler).grid, self.encoded[0]
        t = (grid.steps + 1) // 2
        return self._work(
            lambda x: self.model.denoise(x, grid.times[t], condition.at(t)), list(self.model.trainable.values())
        )

    @cached_property
    def objective(self) -> Work:
        """The passes of decoder and reward; of the decoder alone, where the reward computes with more than tensors."""
        score = Objective(self.model, self.reward).of_frames()
        try:
            return self._work(lambda x: score(x, [self.prompt] * len(x)).values)
        # whatever a program does with pixels that have no content
        except Exception as error:
            self.uncounted.append(f"{self.reward.label} ({type(error).__name__})")
            return self._work(lambda x: self.model.decode(x).flatten(1).mean(1))

    def _work(self, function: Function, weights: Iterable[Tensor] = ()) -> Work:
        shape = (self.batch, *self.model.latent_shape(self.model.size))
        trained = list(weights)
        stay = [t for part in (self.model, self.reward) for t in (*part.parameters(), *part.buffers())]
        kept = passes(self.fake, function, shape, trained)
        return Work(kept, lambda: passes(self.fake, function, shape, trained, stay))

    def peak(self, estimator: Estimator, memory: Memory, batch: int | None = None, draws: int = 1) -> Peak:
        """Returns the most memory of a round, with the optimizer's state.

        Args:
            estimator: The estimator.
            memory: What is given up to save memory.
            batch: Another number of samples.
            draws: The number of rounds, of which the largest counts: an estimator may draw how many steps it replays.

        Raises:
            ValueError: If the estimator does not fit the chain.
        """
        allocator = Allocator(memory.offload_activations)
        batch = batch or self.batch
        # of a step that is recomputed, the graph keeps nothing that could wait
        recomputed = memory.checkpoint_steps or (memory.micro_batch or batch) < batch
        denoiser = self.denoiser.on_device if recomputed else self.denoiser
        model = PlaceholderModel(self.model, denoiser, self.encoded[0], allocator)
        chain = memory.chain(model, self.sampler)
        estimator.check(chain)
        score = PlaceholderObjective(self.objective, self.reward.differentiable, allocator, memory.micro_batch)
        with RealBytes(model) as counted:
            for draw in range(draws):
                self._round(chain, estimator, score, allocator, batch, draw)
        waiting = self._waiting(chain, batch)
        return Peak(counted.peak - waiting, allocator.waiting.peak + waiting)

    def _waiting(self, chain: Chain, batch: int) -> int:
        """Returns the bytes of the rollouts of a round that wait in the CPU's memory; all of them are there at the peak."""
        if not chain.storage.on_cpu:
            return 0
        kept = chain.storage.keep(self._noises(chain, batch), chain.model.device)
        assert isinstance(kept, StoredLatents)
        return 2 * self.optimization.accumulate * kept.bytes

    def _round(
        self,
        chain: Chain,
        estimator: Estimator,
        score: PlaceholderObjective,
        allocator: Allocator,
        batch: int,
        draw: int,
    ) -> None:
        weights = list(chain.model.trainable.values())
        optimizer = self._optimizer(weights)
        rollouts = [
            estimator.rollout(
                chain, [self.prompt] * batch, self._noises(chain, batch), score, spawn(draw, Stream.ROLLOUT, k)
            )
            for k in range(self.optimization.accumulate)
        ]
        penalty = self.penalty.terms if self.penalty else no_terms
        for terms in islice(estimator.updates(rollouts, penalty), UPDATES):
            accumulator = GradientAccumulator(weights, self.optimization.by_kind)
            while (term := allocator.next(terms)) is not None:
                accumulator.add(term, Tensor.backward)
                del term
            optimizer.step()
            optimizer.zero_grad()

    def _optimizer(self, weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Returns the optimizer with its state, which it has after the first update."""
        configured = self.optimization.configure(weights, UPDATES_OF_RUN)
        optimizer: torch.optim.Optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
        optimizer.zero_grad()
        return optimizer

    @staticmethod
    def _noises(chain: Chain, batch: int) -> Tensor:
        return torch.randn(chain.steps + 1, batch, *chain.model.latent_shape(chain.model.size))
