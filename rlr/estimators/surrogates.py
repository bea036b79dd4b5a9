r"""Surrogates: losses of a policy gradient, as functions of an advantage and of likelihoods.

Write :math:`\ell` for the log-likelihood of a recorded step under the current weights and :math:`\ell_0` for that under the
weights of the recording.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Surrogate(ABC):
    """A loss of each sample, as a function of its advantage and its likelihoods."""

    on_policy: bool = False
    """Whether the loss is valid only while the weights are those of the rollout."""

    def check(self, updates: int, owner: str) -> None:
        """Raises a ``ValueError`` if the loss does not hold for all updates of a round of an estimator of this name."""
        if self.on_policy and updates > 1:
            raise ValueError(
                f"{type(self).__name__} holds for the weights of the rollout only, and a round of {updates} updates changes them; "
                f"set {owner}'s num_minibatches and epochs to 1, or use ImportanceRatio"
            )

    @abstractmethod
    def loss(self, advantages: Tensor, log_probs: Tensor, recorded: Tensor) -> Tensor:
        r"""Returns the losses, with shape :math:`(B)`.

        Args:
            advantages: The :math:`A_i`, with shape :math:`(B)`.
            log_probs: The :math:`\ell_i`, with a graph.
            recorded: The :math:`\ell_{0, i}`.
        """

    def clipped(self, change: Tensor) -> Tensor:
        r"""Returns whether the ratio of each sample is outside the clip range, from :math:`\ell - \ell_0`."""
        return torch.zeros_like(change, dtype=torch.bool)


class ScoreFunction(Surrogate):
    r"""REINFORCE, :math:`-A \, \ell` (DDPO's score-function form)."""

    on_policy = True

    def loss(self, advantages: Tensor, log_probs: Tensor, recorded: Tensor) -> Tensor:
        return -advantages * log_probs


class ImportanceRatio(Surrogate):
    r"""The clipped importance ratio of proximal policy optimization.

    .. math:: \max\bigl(-A \rho, \; -A \, \mathrm{clip}(\rho, 1 - c, 1 + c)\bigr), \qquad \rho = e^{\ell - \ell_0}

    Its gradient is that of :class:`ScoreFunction` where :math:`\rho = 1`. A sample whose ratio differs from 1 by more
    than :math:`c` in the direction of its advantage has a zero gradient.

    References:
        | Proximal Policy Optimization Algorithms (Schulman et al., 2017), Eq. 7
        | https://arxiv.org/abs/1707.06347

    Args:
        clip: The range :math:`c > 0`; None does not clip.
        limit: The largest :math:`|\ell - \ell_0|`; larger ones are clamped and have a zero gradient. None does not clamp.
    """

    def __init__(self, clip: float | None = 1e-4, limit: float | None = None) -> None:
        if (clip is not None and not clip > 0) or (limit is not None and not limit > 0):
            raise ValueError(f"ImportanceRatio's clip and limit must be positive or None, and got {clip} and {limit}")
        self.clip = clip
        self.limit = limit

    def loss(self, advantages: Tensor, log_probs: Tensor, recorded: Tensor) -> Tensor:
        ratio = self._ratio(log_probs - recorded)
        if self.clip is None:
            return -advantages * ratio
        return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - self.clip, 1 + self.clip))

    def clipped(self, change: Tensor) -> Tensor:
        beyond = super().clipped(change) if self.limit is None else change.abs() > self.limit
        return beyond if self.clip is None else beyond | ((self._ratio(change) - 1).abs() > self.clip)

    def _ratio(self, change: Tensor) -> Tensor:
        r"""Returns :math:`\rho`, clamped at the limit."""
        return (change if self.limit is None else change.clamp(-self.limit, self.limit)).exp()
