r"""The divergence penalty on the samples whose reward is in doubt alone, from a reference that follows the training (GARDO).

A reward that is exploited likes samples that others do not. With the empirical distribution functions :math:`F, F_k` of the trained
reward :math:`R` and of other rewards :math:`R^k` in the round,

.. math:: u_i = F(R_i) - \sum_k \frac{|w_k|}{\sum_l |w_l|} F_k(w_k R_i^k) \in [-1, 1]

is large where they disagree, and the penalty acts on the share :math:`q` of the round with the largest :math:`u_i`. Every so many
rounds the trained weights become the reference, so that the penalty does not hold the model back for good.

References:
    | GARDO: Reinforcing Diffusion Models without Reward Hacking (He et al., 2025)
    | https://arxiv.org/abs/2512.24138
    | https://github.com/yifan123/flow_grpo, ``scripts/train_sd3_gardo.py``
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.distributed import gather
from rlr.estimators.decoupled import part_of
from rlr.estimators.divergence import Penalty
from rlr.models.base import DiffusionModel
from rlr.models.swapped import swapped
from rlr.rollout import Rollout


class GatedPenalty(Penalty):
    r"""The direct part of the gradient of :math:`\beta \frac{1}{n} \sum_i g_i D(x^{(i)})` with the gates :math:`g_i \in \{0, 1\}`.

    The other rewards are parts of the trained :class:`~rlr.rewards.combine.Combine`, with the weight 0 there if they are not to be
    trained. The published program takes the share of the samples with :math:`u_i \geq 0`, adapts it, averages over the samples
    that it gates, and moves the reference also where the divergence is large; share and interval are constants here.

    Args:
        weight: The weight :math:`\beta > 0`, in units of the reward per nat.
        others: The weights :math:`w_k` of the other rewards by the names of their parts, negative where lower is better.
        share: The share :math:`q \in (0, 1]`.
        every: The number of rounds after which the trained weights become the reference; None keeps the base model.

    Raises:
        ValueError: If a number is out of range, or there are no other rewards.
    """

    def __init__(
        self, weight: float, others: Mapping[str, float], share: float = 0.1, every: int | None = None
    ) -> None:
        super().__init__(weight)
        if not others or not all(others.values()):
            raise ValueError(f"penalty.others: expected other rewards with weights other than 0, got {dict(others)}")
        if not 0 < share <= 1 or (every is not None and every < 1):
            raise ValueError(f"penalty: expected share in (0, 1] and every >= 1 or None, got {share} and {every}")
        self.others, self.share, self.every = dict(others), share, every
        self._threshold = -torch.inf
        self._sorted: dict[str | None, Tensor] = {}
        self._weights: dict[str, Tensor] = {}

    def begin(self, rollouts: Sequence[Rollout], number: int = 0) -> None:
        """Reads the rewards of a round, and moves the reference where it is time."""
        if self.every and number and number % self.every == 0:
            self._weights = _copy(rollouts[0].chain.model)
        names: list[str | None] = [None, *self.others]
        self._sorted = {n: _gathered([self._values(r, n) for r in rollouts]).sort().values for n in names}
        doubts = _gathered([self.doubts(rollout) for rollout in rollouts])
        self._threshold = doubts.quantile(1 - self.share, interpolation="higher").item()

    def doubts(self, rollout: Rollout) -> Tensor:
        r"""Returns the :math:`u_i` of samples of the round, with shape :math:`(B)`."""
        u = self._rank(rollout, None)
        for name, weight in self.others.items():
            u = u - abs(weight) / sum(map(abs, self.others.values())) * self._rank(rollout, name)
        return u

    def sample_weights(self, rollout: Rollout) -> Tensor:
        r"""Returns the gates :math:`g_i`, with shape :math:`(B)`; a rollout outside of a round is one by itself."""
        if not self._sorted:
            self.begin([rollout])
        return (self.doubts(rollout) >= self._threshold).to(rollout.rewards)

    def reference(self, chain: Chain) -> AbstractContextManager[None]:
        return swapped(chain.model, self._weights) if self._weights else super().reference(chain)

    def _rank(self, rollout: Rollout, name: str | None) -> Tensor:
        r"""Returns the empirical distribution function of the round at the rewards, ties in the middle, with shape :math:`(B)`."""
        values, known = self._values(rollout, name), self._sorted[name]
        below, to = (torch.searchsorted(known, values, right=right) for right in (False, True))
        return (below + to).double() / (2 * len(known))

    def _values(self, rollout: Rollout, name: str | None) -> Tensor:
        found = rollout.rewards if name is None else self.others[name] * part_of(rollout, name)
        return found.double().contiguous()

    def state_dict(self) -> dict[str, Any]:
        return {name: weight.clone() for name, weight in self._weights.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._weights = dict(state)


def _copy(model: DiffusionModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.trainable.items()}


def _gathered(batches: Sequence[Tensor]) -> Tensor:
    return torch.cat([gather(batch).flatten() for batch in batches])
