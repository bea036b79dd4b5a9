r"""The interface of a gradient estimator.

Write :math:`\theta_t` for the copy of the weights used by step :math:`t` of the chain, and
:math:`g_t = \partial E[R(x_0)] / \partial \theta_t`. The gradient is :math:`g = \sum_t g_t`, and an estimator
chooses a method to estimate :math:`g_t` for each :math:`t`. The sum of unbiased estimates for disjoint sets of steps is
unbiased for the sum of their gradients.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from torch import Tensor

from rlr.chain import Chain, Trajectory
from rlr.models.base import Condition
from rlr.rollout import Objective, Rollout


@dataclass(frozen=True)
class Term:
    r"""One surrogate loss: its *gradient* estimates a part of :math:`-\nabla_\theta E[R]`; its value has no meaning.

    Args:
        name: The kind of estimate, such as ``first_order``; terms of one name are logged together.
        loss: A scalar with a graph.
        steps: The steps whose gradient it estimates, for messages.
        metrics: Scalars by log name; they are summed over the terms of an update.
        retain_graph: Whether the backward pass must keep the graph, because the next term shares a part of it.
    """

    name: str
    loss: Tensor
    steps: tuple[int, ...]
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    retain_graph: bool = False

    def backward(self) -> None:
        """Adds the gradient of the loss to ``.grad``."""
        self.loss.backward(retain_graph=self.retain_graph)

    def scaled(self, factor: float) -> Self:
        """Returns the term with loss and metrics multiplied by a factor."""
        metrics = {name: factor * value for name, value in self.metrics.items()}
        return replace(self, loss=factor * self.loss, metrics=metrics)


TermSource = Callable[[Rollout], Iterator[Term]]
"""A function that yields terms of a rollout, such as those of a penalty."""


def no_terms(rollout: Rollout) -> Iterator[Term]:
    """Yields nothing."""
    yield from ()


class Estimator(ABC):
    r"""A gradient estimator: it yields surrogate losses one at a time, so that only one graph is alive at once."""

    shares_rollouts: ClassVar[bool] = True
    """Whether it learns from rollouts of the current weights, recorded and sampled as by this class, as other estimators do."""

    @property
    def differentiable(self) -> bool:
        """Whether the estimator needs a reward that is differentiable in the pixels."""
        return False

    @property
    def updates_per_round(self) -> int:
        """The number of updates from one round of rollouts. After the first of them the weights have changed."""
        return 1

    def check(self, chain: Chain) -> None:  # noqa: B027 - a hook
        """Raises a ``ValueError`` that names the remedy if the chain cannot serve this estimator."""

    def record(self, chain: Chain, condition: Condition, noises: Tensor, seed: int) -> Trajectory:
        r"""Records the trajectory that :meth:`terms` reads.

        Args:
            chain: The chain.
            condition: The encoded prompts.
            noises: The noises, with shape :math:`(T + 1, B, *)`.
            seed: The seed of all other random numbers; the same on all ranks.
        """
        return chain.sample(condition, noises)

    def rollout(
        self, chain: Chain, prompts: Sequence[str], noises: Tensor, objective: Objective, seed: int = 0
    ) -> Rollout:
        """Returns a recorded rollout of prompts on given noises; the arguments are those of :class:`~rlr.rollout.Rollout`."""
        trajectory = self.record(chain, chain.encode(prompts), noises, seed)
        return Rollout(chain, trajectory, objective, prompts, seed)

    @abstractmethod
    def terms(self, rollout: Rollout) -> Iterator[Term]:
        """Yields the surrogate losses of a rollout; the caller backpropagates each before it requests the next."""

    def updates(self, rollouts: Sequence[Rollout], penalty: TermSource = no_terms) -> Iterator[Iterator[Term]]:
        """Yields the terms of each update of a round; by default of one update, the mean over its rollouts.

        The caller makes each update before it requests the next.

        Args:
            rollouts: The rollouts of a round, recorded with the current weights.
            penalty: Yields further terms of each rollout.
        """
        yield self._mean(rollouts, penalty)

    def _mean(self, rollouts: Sequence[Rollout], penalty: TermSource) -> Iterator[Term]:
        for rollout in rollouts:
            for source in (self.terms, penalty):
                for term in source(rollout):
                    yield term.scaled(1 / len(rollouts))
                    del term  # its graph must be gone before the next is built

    def metrics(self) -> dict[str, float]:
        """Returns measurements since the last call, by log name; nothing by default. All ranks call it together."""
        return {}

    def state_dict(self) -> dict[str, object]:
        """Returns the state that the estimator keeps from one update to the next; nothing by default."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:  # noqa: B027 - a hook
        """Restores what :meth:`state_dict` returned."""
