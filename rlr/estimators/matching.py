r"""Estimators that learn from final samples by the pre-training loss, weighted by rewards.

Each final sample :math:`x_0` is noised to levels of the grid, and the loss compares :math:`\hat x_0(x_t)` with :math:`x_0`.
It does not depend on the sampler: rollouts may be deterministic, and the reward may be a black box. Its gradient is not that of
:math:`E[R]`, but that of a bound of the likelihood, weighted by advantages.

With guidance, :math:`\hat x_0` is the guided prediction. The authors of these methods sample and train without guidance.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import ClassVar

import torch
from torch import Tensor

from rlr.chain import Chain, Trajectory
from rlr.estimators.base import Term, TermSource, no_terms
from rlr.estimators.forward_process import ForwardProcess, Noised
from rlr.estimators.matching_errors import mean_square
from rlr.estimators.old_policy import DecayRamp, OldPolicy
from rlr.estimators.replay import Minibatch, ReplayEstimator
from rlr.estimators.statistics import Statistics, check_clip, clipped_advantages
from rlr.models.base import Condition
from rlr.rollout import Rollout


class MatchingEstimator(ReplayEstimator):
    r"""Sums losses of noised final samples.

    Args:
        process: How final samples are noised.
        statistics: The statistics that turn rewards into advantages :math:`A_i`.
        advantage_clip: The largest absolute value of an advantage; None does not clip.
        kl: The weight :math:`\geq 0` of :math:`|v - v^\mathrm{ref}|^2 / D`, the squared difference from the base model's
            velocity.
        decay: The decay of the old policy.
        num_minibatches: The number of updates of one pass over a round.
        epochs: The number of passes over a round.
        minibatch: The number of samples of one backward pass; by default the number of samples of a batch.
    """

    shares_rollouts = True
    of_old_policy: ClassVar[bool] = False
    """Whether rollouts are samples of the old policy."""

    def __init__(
        self,
        process: ForwardProcess,
        statistics: Statistics,
        advantage_clip: float | None,
        kl: float,
        decay: DecayRamp,
        num_minibatches: int,
        epochs: int,
        minibatch: int | None,
    ) -> None:
        super().__init__(num_minibatches, epochs, minibatch)
        if kl < 0:
            raise ValueError(f"{type(self).__name__}: expected kl of at least 0, got {kl}")
        check_clip(advantage_clip, type(self).__name__)
        self.process = process
        self.statistics = statistics
        self.advantage_clip = advantage_clip
        self.kl = kl
        self.old = OldPolicy(decay)

    @property
    def needs_reference(self) -> bool:
        """Whether the loss contains the prediction of the base model."""
        return self.kl > 0

    def check(self, chain: Chain) -> None:
        self.process.check(chain)
        if self.needs_reference and not chain.model.has_reference:
            raise ValueError(
                f"{type(self).__name__} compares with the base model, and {type(chain.model).__name__} keeps no weights of before "
                f"training; train a LoRA{', or set kl to 0' if self.kl else ''}"
            )

    def record(self, chain: Chain, condition: Condition, noises: Tensor, seed: int) -> Trajectory:  # type: ignore[override]
        with self.old.within(chain.model) if self.of_old_policy else nullcontext():
            return chain.sample(condition, noises)

    def advantages(self, rollouts: Sequence[Rollout]) -> list[Tensor]:
        return clipped_advantages(self.statistics, rollouts, self.advantage_clip)

    def updates(self, rollouts: Sequence[Rollout], penalty: TermSource = no_terms) -> Iterator[Iterator[Term]]:
        """Yields the terms of each update of a round; afterwards the old policy follows the current one."""
        model = rollouts[0].chain.model
        self.old.begin(model)
        for terms in super().updates(rollouts, penalty):
            yield terms
            self.old.moved()
        self.old.end(model)

    def minibatch_terms(self, minibatch: Minibatch) -> Iterator[Term]:
        chain = minibatch.rollout.chain
        total = len(minibatch.rollout) * self.process.count(chain)
        for noised in self.process.noised(minibatch.rollout):
            advantages = minibatch.advantages[noised.rows.to(minibatch.advantages.device)]
            yield self._term(noised, advantages.to(noised.clean.dtype), minibatch.fresh, total)

    def _term(self, noised: Noised, advantages: Tensor, fresh: bool, total: int) -> Term:
        """Returns the term of one level, a sum over its samples divided by the number of all noised samples."""
        prediction = noised.denoise()
        losses = self.losses(noised, prediction, advantages, fresh)
        metrics = {"matching/error": mean_square(prediction.detach() - noised.clean).sum() / total}
        if self.kl:
            distances = velocity_distance(noised, prediction, reference(noised))
            losses = losses + self.kl * distances
            metrics["kl/velocity"] = distances.detach().sum() / total
        return Term("matching", losses.sum() / total, (noised.step,), metrics).scaled(noised.weight)

    @abstractmethod
    def losses(self, noised: Noised, prediction: Tensor, advantages: Tensor, fresh: bool) -> Tensor:
        r"""Returns the losses of samples at one level, with shape :math:`(n)`.

        Args:
            noised: The noised samples.
            prediction: The :math:`\hat x_0(x_t)` of the current weights, with a graph.
            advantages: The :math:`A_i`, with shape :math:`(n)`.
            fresh: Whether this is the first update of the round.
        """

    def old_prediction(self, noised: Noised, prediction: Tensor) -> Tensor:
        r"""Returns :math:`\hat x_0(x_t)` of the old policy, without a graph; the current one costs no further pass."""
        if self.old.is_current:
            return prediction.detach()
        with torch.no_grad(), self.old.within(noised.chain.model):
            return noised.denoise()

    def metrics(self) -> dict[str, float]:
        return {"old_policy/decay": self.old.decay.at(self.old.updates)}

    def state_dict(self) -> dict[str, object]:
        return {"statistics": self.statistics.state_dict(), "old": self.old.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.statistics.load_state_dict(state["statistics"])  # type: ignore[arg-type]
        self.old.load_state_dict(state["old"])  # type: ignore[arg-type]


@torch.no_grad()
def reference(noised: Noised) -> Tensor:
    r"""Returns :math:`\hat x_0(x_t)` of the base model, with shape :math:`(n, *)`."""
    with noised.chain.model.reference():
        return noised.denoise()


def velocity_distance(noised: Noised, one: Tensor, other: Tensor) -> Tensor:
    r"""Returns :math:`|v - v'|^2 / D = |\hat x_0 - \hat x_0'|^2 / (D \, \sigma_t^2)` of two predictions, with shape :math:`(n)`."""
    return mean_square(one - other) / noised.levels[1] ** 2
