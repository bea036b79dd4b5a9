r"""Estimators that learn from kept roll-outs, several updates to a round.

A round is: roll out ``accumulate`` batches with the weights as they are, score them, and then go over the samples
``epochs`` times, in a new random order each, ``parts`` updates a time. From the second update on the weights are no longer
those of the roll-outs, which the estimator has to allow for.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from rlr.chain import Chain, Trajectory
from rlr.estimators.base import Estimator, Term
from rlr.gaussian import Gaussian
from rlr.seeding import Stream, spawn


@dataclass(frozen=True)
class Recorded(Trajectory):
    r"""A roll-out with the likelihoods of its steps.

    Args:
        log_probs: The **mean** over the latent's dimensions of the log-density of each state, ``log_probs[t - 1]`` that
            of :math:`x_{t-1}` given :math:`x_t`, with shape :math:`(T, B)`.
    """

    log_probs: Tensor = field(kw_only=True)

    def take(self, rows: Tensor) -> Self:
        return replace(super().take(rows), log_probs=self.log_probs[:, rows.to(self.log_probs.device)])


@dataclass(frozen=True)
class Experience:
    r"""A kept roll-out.

    Args:
        trajectory: The roll-out of one batch.
        rewards: Its rewards, with shape :math:`(B)`.
    """

    trajectory: Recorded
    rewards: Tensor


@dataclass(frozen=True)
class Minibatch:
    r"""Samples that are backpropagated together.

    Args:
        trajectory: Their roll-outs.
        rewards: Their rewards, with shape :math:`(b)`.
        advantages: Their advantages, with shape :math:`(b)`.
        portions: How many times as many samples the update has.
        fresh: Whether the weights are those of the roll-outs.
    """

    trajectory: Recorded
    rewards: Tensor
    advantages: Tensor
    portions: float
    fresh: bool


def record(chain: Chain, prompts: Sequence[str], noises: Tensor, seed: int) -> Recorded:
    """Records a roll-out with its likelihoods, at no further pass of the model."""
    log_probs: list[Tensor] = []

    def observe(t: int, transition: Gaussian, x: Tensor) -> None:
        log_probs.insert(0, mean_log_prob(transition, x))

    made = chain.sample(prompts, noises, seed, observe=observe)
    return Recorded(made.prompts, made.condition, made.states, made.noises, seed, log_probs=torch.stack(log_probs))


def mean_log_prob(transition: Gaussian, x: Tensor) -> Tensor:
    r"""Returns :math:`\frac{1}{D} \log \mathcal{N}(x; \mu, \sigma^2)` of latents of :math:`D` dimensions, shape :math:`(B)`."""
    return transition.log_prob(x) / x[0].numel()


class ReplayEstimator(Estimator):
    r"""An estimator that goes over a round of kept roll-outs.

    Args:
        parts: Into how many parts a round is split, one update each.
        epochs: How often it is gone over.
        minibatch: The samples of one backward pass; by default as many as a batch has.
    """

    def __init__(self, parts: int, epochs: int, minibatch: int | None) -> None:
        if min(parts, epochs, 1 if minibatch is None else minibatch) < 1:
            raise ValueError(
                f"{type(self).__name__} needs parts, epochs and minibatch of at least 1, "
                f"and got {parts}, {epochs} and {minibatch}"
            )
        self.parts = parts
        self.epochs = epochs
        self.minibatch = minibatch

    @abstractmethod
    def advantages(self, kept: Sequence[Experience]) -> list[Tensor]:
        r"""Returns the advantages of each roll-out of a round, with shape :math:`(B)`; asked once a round."""

    @abstractmethod
    def terms(self, chain: Chain, minibatch: Minibatch) -> Iterator[Term]:
        """Yields the surrogate losses of a minibatch, means over its samples, one at a time."""

    def rollout(self, chain: Chain, prompts: Sequence[str], noises: Tensor, seed: int) -> Recorded:
        return record(chain, prompts, noises, seed)

    def updates(self, chain: Chain, kept: Sequence[Experience], seed: int) -> Iterator[Iterator[Minibatch]]:
        """Yields the minibatches of each update of a round; a round of fewer samples than parts has fewer updates.

        Args:
            chain: The chain.
            kept: The roll-outs of the round.
            seed: Decides the orders; the same on all ranks.
        """
        advantages = torch.cat(self.advantages(kept))
        samples = Samples(chain, kept, advantages, self.minibatch or len(kept[0].rewards))
        for epoch in range(self.epochs):
            order = torch.randperm(
                len(advantages), generator=torch.Generator().manual_seed(spawn(seed, Stream.ORDER, epoch))
            )
            for number, part in enumerate(order.tensor_split(min(self.parts, len(order)))):
                fresh = epoch == number == 0
                # in their old order, so that a part that is a whole batch is the very batch
                yield samples.minibatches(part.sort().values, spawn(seed, Stream.ROUND, epoch, number), fresh)


@dataclass(frozen=True)
class Samples:
    """The samples of a round, numbered through.

    Args:
        chain: The chain.
        kept: The roll-outs.
        advantages: The advantages of all samples.
        size: How many samples a minibatch has at most.
    """

    chain: Chain
    kept: Sequence[Experience]
    advantages: Tensor
    size: int

    def minibatches(self, part: Tensor, seed: int, fresh: bool) -> Iterator[Minibatch]:
        """Yields the minibatches of the samples of one update."""
        rewards = torch.cat([experience.rewards for experience in self.kept])
        for k, rows in enumerate(part.split(self.size)):
            here = rows.to(rewards.device)
            portions = len(part) / len(rows)
            yield Minibatch(
                self._join(rows, spawn(seed, Stream.MINIBATCH, k)),
                rewards[here],
                self.advantages[here],
                portions,
                fresh,
            )

    def _join(self, rows: Tensor, seed: int) -> Recorded:
        """Puts roll-outs of several batches side by side."""
        places = [(e.trajectory, i) for e in self.kept for i in range(len(e.rewards))]
        chosen = [places[row] for row in rows.tolist()]
        prompts = [trajectory.prompts[i] for trajectory, i in chosen]
        states, noises, log_probs = (
            torch.stack([getattr(trajectory, name)[:, i] for trajectory, i in chosen], 1)
            for name in ("states", "noises", "log_probs")
        )
        return Recorded(prompts, self.chain.encode(prompts), states, noises, seed, log_probs=log_probs)
