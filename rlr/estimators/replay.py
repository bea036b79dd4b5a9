r"""Estimators that learn from a round of rollouts in several updates.

A round has three parts: sample ``accumulate`` batches with the current weights, score them, and pass over the samples
``epochs`` times, each time in a new random order and in ``num_minibatches`` updates. From the second update on the weights
differ from those of the rollouts, and the estimator has to correct for the difference.

The samples of all ranks are one round, in one order: each rank backpropagates what it holds of an update, which may be nothing. So
the updates do not depend on the number of ranks.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from rlr.chain import Chain, Trajectory
from rlr.distributed import any_rank, world_size
from rlr.estimators.base import Estimator, Term, TermSource, no_terms
from rlr.gaussian import Gaussian
from rlr.lockstep import parts
from rlr.models.base import Condition
from rlr.rollout import Rollout, Share, join
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
        weight: 1, or 0 for one that only takes part in the passes of other processes; see :mod:`rlr.lockstep`.
    """

    rollout: Rollout
    advantages: Tensor
    fresh: bool
    weight: float = 1.0

    @property
    def trajectory(self) -> Recorded:
        """The recorded trajectory."""
        assert isinstance(self.rollout.trajectory, Recorded)
        return self.rollout.trajectory


def record(chain: Chain, condition: Condition, noises: Tensor) -> Recorded:
    """Records a trajectory with its likelihoods, at no further pass of the model."""
    log_probs: list[Tensor] = []

    def add_log_prob(t: int, transition: Gaussian, x: Tensor) -> None:
        log_probs.insert(0, mean_log_prob(transition, x) if transition.std > 0 else x.new_zeros(len(x)))

    made = chain.sample(condition, noises, observe=add_log_prob)
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
        advantages, share = torch.cat(self.advantages(rollouts)), share_of_round(rollouts)
        for epoch in range(self.epochs):
            order = torch.randperm(share.total, generator=rollouts[0].generator(Stream.ORDER, epoch))
            for number, part in enumerate(order.tensor_split(min(self.num_minibatches, share.total))):
                # in the order of the round, so that an update with one whole batch equals an update with that batch
                rows, own = part_of_share(share, part.sort().values)
                seed = rollouts[0].spawn(Stream.MINIBATCH, epoch, number)
                fresh = (epoch, number) == (0, 0)
                yield self._update(rollouts, advantages, rows, own, seed, fresh=fresh, penalty=penalty)

    def _update(
        self,
        rollouts: Sequence[Rollout],
        advantages: Tensor,
        rows: Tensor,
        own: Share,
        seed: int,
        *,
        fresh: bool,
        penalty: TermSource,
    ) -> Iterator[Term]:
        """Yields the terms of an update with these samples of the round, weighted by the sizes of their minibatches.

        Gradients are averaged over ranks afterwards, hence the factor :math:`W`.
        """
        size = self.minibatch or len(rollouts[0])
        places = own.numbers.split(size)
        for part in parts(rows.split(size)):
            numbers = places[part.number] if part.weight else torch.zeros(1, dtype=torch.long)
            rollout = gather_rows(rollouts, part.rows, seed, Share(numbers, own.total))
            chosen = advantages[part.rows.to(advantages.device)]
            minibatch = Minibatch(rollout, chosen, fresh, part.weight)
            factor = part.weight * world_size() * len(part.rows) / own.total
            for terms in (self.minibatch_terms(minibatch), penalty(rollout)):
                for term in terms:
                    yield term.scaled(factor)
                    del term  # its graph must be gone before the next is built


def share_of_round(rollouts: Sequence[Rollout]) -> Share:
    """Returns which samples of a round this rank has; the numbers go on from rollout to rollout."""
    firsts = [sum(before.share.total for before in rollouts[:k]) for k in range(len(rollouts))]
    numbers = torch.cat([first + r.share.numbers for first, r in zip(firsts, rollouts, strict=True)])
    return Share(numbers, firsts[-1] + rollouts[-1].share.total)


def part_of_share(share: Share, chosen: Tensor) -> tuple[Tensor, Share]:
    """Returns what this rank has of chosen samples of a round: the rows among its own, and their share of the chosen.

    Args:
        share: Which samples of the round this rank has.
        chosen: The numbers of the chosen samples, in increasing order.
    """
    rows = torch.isin(share.numbers, chosen).nonzero().flatten()
    return rows, Share(torch.searchsorted(chosen, share.numbers[rows]), len(chosen))


def gather_rows(rollouts: Sequence[Rollout], rows: Tensor, seed: int, share: Share | None = None) -> Rollout:
    """Returns some samples of a round as one rollout.

    Args:
        rollouts: The rollouts of the round.
        rows: The rows of the samples among this rank's of the round, in increasing order.
        seed: The seed of the new rollout.
        share: The share of the new rollout.
    """
    chosen, first = [], 0
    for rollout in rollouts:
        inside = rows[(rows >= first) & (rows < first + len(rollout))] - first
        if len(inside):
            chosen.append(rollout.select(inside))
        first += len(rollout)
    return join(chosen, seed, share)
