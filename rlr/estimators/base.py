r"""The contract of a gradient estimator.

Write :math:`\theta_t` for the copy of the weights used by step :math:`t` of the chain, and
:math:`g_t = \partial E[R(x_0)] / \partial \theta_t`. The gradient is :math:`g = \sum_t g_t`, and an estimator is
a choice, for each :math:`t`, of how to estimate its own :math:`g_t`. Sums of unbiased estimates of
disjoint sets of steps are unbiased for the sum.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlr.chain import Chain, Trajectory

Objective = Callable[[Tensor], Tensor]
r"""The reward of final latents, decoder included: from :math:`x_0`, with shape :math:`(B, *)`, to :math:`(B)`."""


@dataclass(frozen=True)
class Term:
    r"""One surrogate loss: its *gradient* estimates part of :math:`-\nabla_\theta E[R]`, its value means nothing.

    Args:
        name: The kind of estimate, such as ``first_order``; terms of one name are logged together.
        loss: A scalar with a graph.
        steps: The steps whose gradient it estimates, for messages.
        rewards: The rewards of the recorded roll-out, detached, with shape :math:`(B)`.
    """

    name: str
    loss: Tensor
    steps: tuple[int, ...]
    rewards: Tensor


class Estimator(ABC):
    r"""A gradient estimator: it yields surrogate losses one at a time, so that only one graph is alive at once."""

    @property
    def differentiable(self) -> bool:
        """Whether it needs a reward that has a gradient in the pixels."""
        return False

    def check(self, chain: Chain) -> None:  # noqa: B027 - a hook
        """Raises a ``ValueError`` that names the remedy if the chain cannot serve this estimator."""

    def rollout(self, chain: Chain, prompts: Sequence[str], noises: Tensor, seed: int) -> Trajectory:
        r"""Records the roll-out that :meth:`losses` reads.

        Args:
            chain: The chain.
            prompts: The :math:`B` prompts.
            noises: The noises, with shape :math:`(T + 1, B, *)`.
            seed: Decides what else is drawn; the same on all ranks.
        """
        return chain.sample(prompts, noises, seed)

    @abstractmethod
    def losses(self, chain: Chain, trajectory: Trajectory, objective: Objective) -> Iterator[Term]:
        """Yields the surrogate losses; the caller runs each backward before it asks for the next."""

    def metrics(self) -> dict[str, float]:
        """Returns what it has to say, by name, of the updates since it was last asked; nothing by default."""
        return {}

    def state_dict(self) -> dict[str, object]:
        """Returns what the estimator remembers from one update to the next; nothing by default."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:  # noqa: B027 - a hook
        """Restores what :meth:`state_dict` returned."""


@torch.no_grad()
def score(objective: Objective, x: Tensor) -> Tensor:
    r"""Returns :math:`R(x_0)` without a graph, with shape :math:`(B)`."""
    return objective(x)
