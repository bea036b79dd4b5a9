r"""A rollout: the samples of one batch, and everything an estimator may do with them.

A rollout records the chain :math:`x_T \to \dots \to x_0` once, without gradient. An estimator then replays parts of it with
gradient, resamples it with other weights on the same noises, or reads its rewards.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from rlr.chain import Chain, Evaluation, Trajectory, Within, unchanged
from rlr.distributed import rank, world_size
from rlr.gaussian import Gaussian
from rlr.rewards.base import Scores
from rlr.scoring import AtOnce, Pending
from rlr.seeding import Stream, spawn

Objective = Callable[[Tensor, Sequence[str]], Scores]
r"""Scores final latents :math:`x_0`, with shape :math:`(B, *)`, of :math:`B` prompts; decodes them first."""


@runtime_checkable
class Deferrable(Protocol):
    """An objective that can be asked for scores before they are needed."""

    def begin(self, x: Tensor, prompts: Sequence[str]) -> Pending[Scores]:
        r"""Begins to score final latents :math:`x_0`, with shape :math:`(B, *)`, and returns what waits for the scores."""


def unconditional(reward: Callable[[Tensor], Tensor]) -> Objective:
    r"""Returns the objective that scores latents :math:`x_0` by a function, whatever their prompts."""
    return lambda x, prompts: Scores(reward(x))


@dataclass(frozen=True)
class Share:
    r"""Which of the :math:`N` samples that all ranks learn from together belong to a rollout.

    What an estimator draws for a sample depends on its number, and not on the rank or the minibatch that holds it: any number of
    processes draws the same.

    Args:
        numbers: The numbers :math:`0, \dots, N - 1` of the samples, in increasing order, with shape :math:`(B)`.
        total: The number :math:`N`.
    """

    numbers: Tensor
    total: int

    @classmethod
    def of_rank(cls, batch: int) -> Self:
        r"""Returns the share of this rank where each of :math:`W` ranks has :math:`B` samples, one rank after the other."""
        return cls(rank() * batch + torch.arange(batch), world_size() * batch)

    def select(self, rows: Tensor) -> Self:
        """Returns the share of some of the samples."""
        return replace(self, numbers=self.numbers[rows])


class Rollout:
    r"""A recorded batch of samples.

    Args:
        chain: The chain that was sampled.
        trajectory: The recorded states and noises.
        objective: Scores final latents.
        prompts: The :math:`B` prompts.
        seed: Decides what an estimator draws besides the noises; the same on all ranks.
        scores: The scores of the recorded samples, where they are known.
        share: Which of the samples of all ranks they are; by default those of this rank, of as many on each.
    """

    def __init__(
        self,
        chain: Chain,
        trajectory: Trajectory,
        objective: Objective,
        prompts: Sequence[str],
        seed: int = 0,
        scores: Scores | None = None,
        share: Share | None = None,
    ) -> None:
        self.chain = chain
        self.trajectory = trajectory
        self.objective = objective
        self.prompts = prompts
        self.seed = seed
        self.share = share or Share.of_rank(len(prompts))
        self._scores = scores
        self._pending: Pending[Scores] | None = None

    def __len__(self) -> int:
        """Returns the number :math:`B` of samples."""
        return len(self.prompts)

    @property
    def scores(self) -> Scores:
        """The scores of the recorded samples, without a graph. They are computed once."""
        if self._scores is None:
            self.begin_scores()
            assert self._pending is not None
            self._scores, self._pending = self._pending().detach(), None
        return self._scores

    @torch.no_grad()
    def begin_scores(self) -> None:
        """Begins to compute :attr:`scores`, unless this is done or under way."""
        if self._scores is None and self._pending is None:
            self._pending = self.begin(self.trajectory.states[0])

    @property
    def rewards(self) -> Tensor:
        r"""The rewards to be maximized of the recorded samples, with shape :math:`(B)`, without a graph."""
        return self.scores.objective

    def score(self, x: Tensor) -> Tensor:
        r"""Returns the rewards of other samples :math:`x_0` of the same prompts, with shape :math:`(B)`."""
        return self.objective(x, self.prompts).objective

    def begin(self, x: Tensor) -> Pending[Scores]:
        r"""Begins to score other samples :math:`x_0` of the same prompts, and returns what waits for their scores.

        Where the objective cannot be asked ahead, they are there at once.
        """
        if isinstance(self.objective, Deferrable):
            return self.objective.begin(x, self.prompts)
        return AtOnce().begin(lambda: self.objective(x, self.prompts))

    def score_recorded(self, x: Tensor) -> Tensor:
        r"""Returns the rewards of replayed samples, with shape :math:`(B)`, and keeps them as :attr:`rewards`.

        A replay on the recorded noises gives the recorded samples again, so they need no second score.

        Args:
            x: The replayed samples, with shape :math:`(B, *)` and a graph.
        """
        scores = self.objective(x, self.prompts)
        self._scores = scores.detach()
        return scores.objective

    def evaluate(self, t: int) -> Evaluation:
        r"""Evaluates the network in the recorded state :math:`x_t`; see :meth:`~rlr.chain.Chain.evaluate`."""
        return self.chain.evaluate(self.trajectory, t)

    def replay(
        self, start: int, stop: int, stop_grad_steps: Container[int] = (), first: Evaluation | None = None
    ) -> Gaussian:
        r"""Replays :math:`x_\mathrm{start} \to x_\mathrm{stop}` with gradient; see :meth:`~rlr.chain.Chain.replay`."""
        return self.chain.replay(self.trajectory, start, stop, stop_grad_steps, first)

    def replay_sample(
        self, start: int, stop_grad_steps: Container[int] = (), first: Evaluation | None = None
    ) -> Tensor:
        r"""Replays :math:`x_\mathrm{start} \to x_0` with gradient and returns the sample :math:`x_0`."""
        return self.replay(start, 0, stop_grad_steps, first).sample(self.trajectory.noises[0])

    def predict(self, t: int) -> Tensor:
        r"""Returns the one-step prediction :math:`\hat x_0(x_t)` in the recorded state, with gradient."""
        return self.chain.look_ahead(self.trajectory.states[t], t, self.trajectory.condition)

    def resample(self, within: Within = unchanged) -> Tensor:
        r"""Returns samples :math:`x_0` of the same noises and conditions with other weights; nothing is encoded again.

        Args:
            within: The context of each step, such as shifted weights.
        """
        return self.chain.sample(self.trajectory.condition, self.trajectory.noises, within).states[0]

    def spawn(self, stream: Stream, *index: int) -> int:
        """Returns a seed of this rollout."""
        return spawn(self.seed, stream, *index)

    def generator(self, stream: Stream, *index: int) -> torch.Generator:
        """Returns a generator of this rollout, on the CPU."""
        return torch.Generator().manual_seed(self.spawn(stream, *index))

    def normal(self, stream: Stream, *index: int, rows: Tensor | None = None) -> Tensor:
        r"""Returns standard normal noise for samples, by their numbers in the :attr:`share`, with the shape of their :math:`x_0`.

        Args:
            stream: What the noise is for.
            index: Numbers that tell several noises of a sample apart.
            rows: The rows of the samples in the batch; by default all.
        """
        x = self.trajectory.states[0]
        numbers = self.share.numbers if rows is None else self.share.numbers[rows]
        drawn = [
            torch.randn(x.shape[1:], generator=self.generator(stream, *index, number), dtype=x.dtype)
            for number in numbers.tolist()
        ]
        return torch.stack(drawn).to(x.device)

    def select(self, rows: Tensor) -> "Rollout":
        """Returns the rollout of some of the samples, given by their rows in the batch."""
        scores = None if self._scores is None else self._scores.select(rows)
        prompts = [self.prompts[i] for i in rows.tolist()]
        share = self.share.select(rows)
        return Rollout(self.chain, self.trajectory.select(rows), self.objective, prompts, self.seed, scores, share)


def fault(rollouts: Sequence[Rollout]) -> str | None:
    """Returns what is wrong with the scores of rollouts; None if nothing is."""
    return next((rollout.scores.fault for rollout in rollouts if rollout.scores.fault), None)


def join(rollouts: Sequence[Rollout], seed: int, share: Share | None = None) -> Rollout:
    """Returns several rollouts of one chain, with known scores, as one.

    Args:
        rollouts: The rollouts; later scores are those of the first one's objective.
        seed: The seed of the joined rollout.
        share: The share of the joined rollout.
    """
    first = rollouts[0]
    condition = first.chain.join([rollout.trajectory.condition for rollout in rollouts])
    trajectory = type(first.trajectory).join([rollout.trajectory for rollout in rollouts], condition)
    prompts = [prompt for rollout in rollouts for prompt in rollout.prompts]
    scores = Scores.join([r.scores for r in rollouts])
    return Rollout(first.chain, trajectory, first.objective, prompts, seed, scores, share)
