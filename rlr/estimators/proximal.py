r"""Clipped policy gradients over a round of rollouts, one step of the chain at a time.

Each step is an action. With :math:`\ell_t` the **mean** over the latent's :math:`D` dimensions of its log-likelihood,
:math:`\ell_t^0` the same under the weights of the rollout and :math:`\rho_t = \exp(\ell_t - \ell_t^0)`,

.. math:: L = \frac{1}{n \, T'} \sum_{i = 1}^{n} \sum_{t \in S_i}
    \max\bigl(-A_i \rho_{i,t}, \; -A_i \, \mathrm{clip}(\rho_{i,t}, 1 - c, 1 + c)\bigr)

is the loss of an update over :math:`n` samples that train on :math:`T'` steps each. A subclass chooses the steps :math:`S_i`. While
the weights are those of the rollout, :math:`\rho = 1`, and the gradient is that of REINFORCE with the advantages :math:`A_i`,
divided by :math:`D \, T'`.
"""

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.distributed import gather_objects
from rlr.estimators.base import Term
from rlr.estimators.ratios import LikelihoodRatio, Ratio
from rlr.estimators.replay import Minibatch, Recorded, ReplayEstimator
from rlr.estimators.statistics import Statistics, check_clip, clipped_advantages
from rlr.estimators.surrogates import Surrogate
from rlr.gaussian import Gaussian
from rlr.lockstep import Part, parts
from rlr.rollout import Rollout

TOLERANCE = 1e-5
"""The largest difference of a ratio of the first update from 1; a tenth of the published clip range."""


class Proximal(ReplayEstimator):
    r"""Clipped policy gradients over rounds of rollouts, for any reward.

    Args:
        num_minibatches: The number of updates of one pass over a round.
        epochs: The number of passes over a round.
        minibatch: The number of samples of one backward pass; by default the number of samples of a batch.
        surrogate: The loss of a step.
        statistics: The statistics that turn rewards into advantages.
        advantage_clip: The largest absolute value of an advantage; None does not clip.
        ratio: The ratio of the likelihoods of a step; by default ``LikelihoodRatio()``.
    """

    label: str
    """What the log calls the method."""

    def __init__(
        self,
        num_minibatches: int,
        epochs: int,
        minibatch: int | None,
        surrogate: Surrogate,
        statistics: Statistics,
        advantage_clip: float | None,
        ratio: Ratio | None = None,
    ) -> None:
        super().__init__(num_minibatches, epochs, minibatch)
        self.surrogate = surrogate
        self.statistics = statistics
        self.advantage_clip = advantage_clip
        self.ratio = ratio or LikelihoodRatio()
        self._changes: list[Tensor] = []
        self._first: list[Tensor] = []
        self._warned = False
        check_clip(advantage_clip, type(self).__name__)
        surrogate.check(self.updates_per_round, type(self).__name__)

    @abstractmethod
    def trained(self, chain: Chain, minibatch: Minibatch) -> Tensor:
        r"""Returns whether each sample trains on each step :math:`1, \dots, T`, with shape :math:`(b, T)`."""

    @abstractmethod
    def scale(self, chain: Chain, t: int) -> float:
        r"""Returns the factor on the loss of step :math:`t`, :math:`1 / T'` for the mean over steps."""

    def penalize(self, chain: Chain, transition: Gaussian, trajectory: Recorded, t: int) -> Tensor | None:
        r"""Returns what is added to the loss of each sample in step :math:`t`, with shape :math:`(b)`; by default nothing."""
        return None

    def advantages(self, rollouts: Sequence[Rollout]) -> list[Tensor]:
        return clipped_advantages(self.statistics, rollouts, self.advantage_clip)

    def minibatch_terms(self, minibatch: Minibatch) -> Iterator[Term]:
        chain = minibatch.rollout.chain
        trained, steps = self.trained(chain, minibatch), range(chain.steps, 0, -1)
        for part in parts([trained[:, t - 1].nonzero().flatten() for t in steps]):
            yield self._term(chain, minibatch, steps[part.number], part)
        if minibatch.fresh and self._first:
            # here and not with the metrics, so that a wrong round is reported before its first update
            self._check_first(farthest(torch.cat(self._first)).exp().item())

    def _term(self, chain: Chain, minibatch: Minibatch, t: int, part: Part) -> Term:
        r"""Returns the term of step :math:`t`, of the samples that train on it."""
        n, whole, rows = len(minibatch.rollout), minibatch.trajectory, part.rows
        trajectory = whole if len(rows) == n else whole.select(rows)
        transition = chain.replay(trajectory, t, t - 1)
        now, then = self.ratio.logarithms(transition, trajectory, t)
        if minibatch.weight and part.weight:
            self._note((now - then).detach(), minibatch.fresh)
        advantages = minibatch.advantages[rows.to(minibatch.advantages.device)]
        loss = self.scale(chain, t) * self.surrogate.loss(advantages, now, then).sum() / n
        penalty = self.penalize(chain, transition, trajectory, t)
        if penalty is None:
            return Term("half_order", loss, (t,)).scaled(part.weight)
        added = penalty.sum() / n
        return Term("half_order", loss + added, (t,), {f"{self.label}/penalty": added.detach()}).scaled(part.weight)

    def _note(self, change: Tensor, fresh: bool) -> None:
        self._changes.append(change)
        if fresh:
            self._first.append(change)

    def metrics(self) -> dict[str, float]:
        r"""Returns :math:`\frac12 E[(\ell - \ell^0)^2]`, the share of ratios outside the clip range, and the first
        update's ratio that is farthest from 1, of the samples of all ranks.

        All ranks must call this function together. A rank may have no sample of an update.
        """
        changes, first = self._changes, self._first
        self._changes, self._first = [], []
        everyone = [part for part in gather_objects(self._summary(changes, first)) if part]
        if not everyone:
            return {}
        squares, outside, count, worst = (list(values) for values in zip(*everyone, strict=True))
        return {
            f"{self.label}/approx_kl": sum(squares) / sum(count) / 2,
            f"{self.label}/clip_fraction": sum(outside) / sum(count),
            f"{self.label}/ratio_first": farthest(torch.tensor(worst)).exp().item(),
        }

    def _summary(self, changes: Sequence[Tensor], first: Sequence[Tensor]) -> tuple[float, float, int, float] | None:
        """Returns sums over changes, their number, and the farthest of the first update; None of no change."""
        if not changes:
            return None
        joined = torch.cat(list(changes))
        outside = self.surrogate.clipped(joined).sum().item()
        worst = farthest(torch.cat(list(first))).item() if first else 0.0
        return joined.square().sum().item(), outside, len(joined), worst

    def _check_first(self, ratio: float) -> None:
        if self._warned or abs(ratio - 1) <= TOLERANCE:
            return
        self._warned = True
        warnings.warn(
            f"a replayed step differs from the recorded step: expected a likelihood ratio of 1 before the first update, got "
            f"{ratio:.6g}; use precision 32-true, minibatches as large as a batch, or a clip range far above the difference",
            stacklevel=2,
        )

    def state_dict(self) -> dict[str, object]:
        return {"statistics": self.statistics.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.statistics.load_state_dict(state["statistics"])  # type: ignore[arg-type]


def farthest(changes: Tensor) -> Tensor:
    """Returns the change that is farthest from 0, with shape (1)."""
    return changes[changes.abs().argmax()].view(1)
