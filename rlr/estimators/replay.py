r"""Estimators that learn from a round of rollouts in several updates.

A round has three parts: sample ``accumulate`` batches with the current weights, score them, and pass over the samples
``epochs`` times, each time in a new random order and in ``num_minibatches`` updates. From the second update on the weights
differ from those of the rollouts, and the estimator has to correct for the difference.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from rlr.chain import Chain, Trajectory
from rlr.distributed import any_rank
from rlr.estimators.base import Estimator, Term, TermSource, no_terms
from rlr.gaussian import Gaussian
from rlr.models.base import Condition
from rlr.rollout import Rollout, join
from rlr.seeding import Stream


@dataclass(frozen=True)
class Recorded(Trajectory):
    r"""A trajectory with the likelihoods of its steps.

    Args:
        log_probs: The **mean** over the latent's dimensions of the log-density of each state, with shape :math:`(T, B)`;
            ``log_probs[t - 1]`` is that of :math:`x_{t-1}` given :math:`x_t`, and 0 for a deterministic step.
    """

    log_probs: Tensor = field(kw_only=True)

    def select(self, rows: Tensor) -> Self:
        return replace(super().select(rows), log_probs=self.log_probs[:, rows.to(self.log_probs.device)])

    @classmethod
    def join(cls, trajectories: Sequence[Self], condition: Condition) -> Self:
        log_probs = torch.cat([trajectory.log_probs for trajectory in trajectories], 1)
        return replace(super().join(trajectories, condition), log_probs=log_probs)


@dataclass(frozen=True)
class Minibatch:
    r"""Samples that are backpropagated together.

    Args:
        rollout: The rollout of the samples, whose trajectory is :class:`Recorded`.
        advantages: The advantages of the samples, with shape :math:`(b)`.
        fresh: Whether the weights are those of the rollout.
    """

    rollout: Rollout
    advantages: Tensor
    fresh: bool

    @property
    def trajectory(self) -> Recorded:
        """The recorded trajectory."""
        assert isinstance(self.rollout.trajectory, Recorded)
        return self.rollout.trajectory


def record(chain: Chain, condition: Condition, noises: Tensor) -> Recorded:
    """Records a trajectory with its likelihoods, at no further pass of the model."""
    log_probs: list[Tensor] = []

    def observe(t: int, transition: Gaussian, x: Tensor) -> None:
        log_probs.insert(0, mean_log_prob(transition, x) if transition.std > 0 else x.new_zeros(len(x)))

    made = chain.sample(condition, noises, observe=observe)
    return Recorded(made.condition, made.states, made.noises, log_probs=torch.stack(log_probs))


def mean_log_prob(transition: Gaussian, x: Tensor) -> Tensor:
    r"""Returns :math:`\frac{1}{D} \log \mathcal{N}(x; \mu, \sigma^2)` of latents of :math:`D` dimensions, shape :math:`(B)`."""
    return transition.log_prob(x) / x[0].numel()


class ReplayEstimator(Estimator):
    r"""An estimator that learns from a round of rollouts in several updates.

    Args:
        num_minibatches: The number of updates that one pass over a round makes.
        epochs: The number of passes over a round.
        minibatch: The number of samples of one backward pass; by default that of a batch.
    """

    shares_rollouts = False

    def __init__(self, num_minibatches: int, epochs: int, minibatch: int | None) -> None:
        for name, value in (("num_minibatches", num_minibatches), ("epochs", epochs), ("minibatch", minibatch)):
            if value is not None and value < 1:
                raise ValueError(f"{type(self).__name__}.{name}: expected at least 1, got {value}")
        self.num_minibatches = num_minibatches
        self.epochs = epochs
        self.minibatch = minibatch

    @property
    def updates_per_round(self) -> int:
        return self.num_minibatches * self.epochs

    @abstractmethod
    def advantages(self, rollouts: Sequence[Rollout]) -> list[Tensor]:
        r"""Returns the advantages of each rollout of a round, with shape :math:`(B)`; called once a round."""

    @abstractmethod
    def minibatch_terms(self, minibatch: Minibatch) -> Iterator[Term]:
        """Yields the surrogate losses of a minibatch, means over its samples, one at a time."""

    def record(self, chain: Chain, condition: Condition, noises: Tensor, seed: int) -> Recorded:
        return record(chain, condition, noises)

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        """Yields the terms of the first update of a round of this one rollout."""
        (advantages,) = self.advantages([rollout])
        yield from self.minibatch_terms(Minibatch(rollout, advantages, fresh=True))

    def updates(self, rollouts: Sequence[Rollout], penalty: TermSource = no_terms) -> Iterator[Iterator[Term]]:
        """Yields the terms of each update of a round; a round of fewer samples than minibatches has fewer updates.

        If a reward is not finite on any rank, the round has one update without terms, which is skipped.
        """
        if any_rank(any(not rollout.rewards.isfinite().all() for rollout in rollouts)):
            yield iter(())
            return
        advantages = torch.cat(self.advantages(rollouts))
        for epoch in range(self.epochs):
            order = torch.randperm(len(advantages), generator=rollouts[0].generator(Stream.ORDER, epoch))
            for number, part in enumerate(order.tensor_split(min(self.num_minibatches, len(order)))):
                # in the order of the round, so that an update with one whole batch equals an update with that batch
                rows, key = part.sort().values, (epoch, number)
                yield self._update(rollouts, advantages, rows, key, fresh=key == (0, 0), penalty=penalty)

    def _update(
        self,
        rollouts: Sequence[Rollout],
        advantages: Tensor,
        rows: Tensor,
        key: tuple[int, int],
        *,
        fresh: bool,
        penalty: TermSource,
    ) -> Iterator[Term]:
        """Yields the terms of the update with these samples of the round, weighted by the sizes of their minibatches."""
        for k, some in enumerate(rows.split(self.minibatch or len(rollouts[0]))):
            rollout = gather_rows(rollouts, some, rollouts[0].spawn(Stream.MINIBATCH, *key, k))
            minibatch = Minibatch(rollout, advantages[some.to(advantages.device)], fresh)
            for terms in (self.minibatch_terms(minibatch), penalty(rollout)):
                for term in terms:
                    yield term.scaled(len(some) / len(rows))
                    del term  # its graph must be gone before the next is built


def gather_rows(rollouts: Sequence[Rollout], rows: Tensor, seed: int) -> Rollout:
    """Returns some samples of a round as one rollout.

    Args:
        rollouts: The rollouts of the round.
        rows: The numbers of the samples in the round, in increasing order.
        seed: The seed of the new rollout.
    """
    chosen, first = [], 0
    for rollout in rollouts:
        inside = rows[(rows >= first) & (rows < first + len(rollout))] - first
        if len(inside):
            chosen.append(rollout.select(inside))
        first += len(rollout)
    return join(chosen, seed)
