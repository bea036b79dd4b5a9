r"""Advantage weighted matching: the pre-training loss of final samples as their log-likelihood in a policy gradient.

The error :math:`m_{i,t}` of :math:`\hat x_0(x_t)` for the noised sample :math:`x_t = \alpha_t x_0 + \sigma_t \varepsilon` stands
for the log-likelihood, :math:`\ell_{i,t} = -m_{i,t}`, and :math:`\ell^0_{i,t}` is the same under the weights of the rollout.
The loss is

.. math:: L = \frac{1}{n K} \sum_{i, t} \max\bigl(-A_i \rho_{i,t}, \; -A_i \, \mathrm{clip}(\rho_{i,t}, 1 - c, 1 + c)\bigr)
    + \beta |v - v^\mathrm{ref}|^2 / D + \beta' |v - v^\mathrm{old}|^2 / D, \qquad \rho = e^{\ell - \ell^0}

with advantages that are clipped and divided by their largest value. In the first update of a round :math:`\rho = 1`, and the first
term has the gradient of :math:`\sum A_i m_{i,t}`.

Bias: the error is a bound of the likelihood and not the likelihood of the sampler, so the gradient is not that of :math:`E[R]`;
negative advantages raise the error without a bound, which the two anchors and the clip range limit.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rlr.estimators.base import Term, TermSource, no_terms
from rlr.estimators.forward_process import ForwardProcess, Noised
from rlr.estimators.matching import MatchingEstimator, velocity_distance
from rlr.estimators.matching_errors import MatchingError, PowerVelocityError
from rlr.estimators.old_policy import DecayRamp
from rlr.estimators.statistics import GroupStatistics, RoundStd, Statistics
from rlr.estimators.surrogates import ImportanceRatio, Surrogate
from rlr.models.swapped import swapped
from rlr.rollout import Rollout


class AWM(MatchingEstimator):
    r"""Advantage weighted matching, for any reward and any sampler.

    References:
        | Advantage Weighted Matching: Aligning RL with Pretraining in Diffusion Models (Xue et al., 2025)
        | https://arxiv.org/abs/2509.25050
        | https://github.com/scxue/advantage_weighted_matching

    Args:
        process: How final samples are noised; by default 6 levels of each.
        error: The error :math:`m`; by default that of the published code. ``VelocityError()`` is that of the paper's equations.
        surrogate: The loss as a function of :math:`A`, :math:`\ell` and :math:`\ell^0`; by default a ratio with the clip range 1.
        statistics: The statistics of rewards; by default those of the groups over the standard deviation of the round.
        advantage_clip: The largest absolute value of an advantage, by which advantages are then divided.
        kl: The weight :math:`\beta` of the squared difference from the base model's velocity.
        old_weight: The weight :math:`\beta'` of the squared difference from the old policy's velocity; 0 saves its passes.
        decay: The decay of the old policy; samples are those of the current policy.
        num_minibatches: The number of updates of one pass over a round.
        epochs: The number of passes over a round.
        minibatch: The number of samples of one backward pass; by default the number of samples of a batch.
    """

    def __init__(
        self,
        process: ForwardProcess | None = None,
        error: MatchingError | None = None,
        surrogate: Surrogate | None = None,
        statistics: Statistics | None = None,
        advantage_clip: float = 5.0,
        kl: float = 0.003,
        old_weight: float = 1.0,
        decay: DecayRamp | None = None,
        num_minibatches: int = 2,
        epochs: int = 1,
        minibatch: int | None = None,
    ) -> None:
        super().__init__(
            process or ForwardProcess(levels=6),
            statistics or GroupStatistics(RoundStd(), leave_one_out=False),
            advantage_clip,
            kl,
            decay or DecayRamp(slope=0.001, limit=0.3),
            num_minibatches,
            epochs,
            minibatch,
        )
        self.error = error or PowerVelocityError()
        self.surrogate = surrogate or ImportanceRatio(clip=1.0)
        self.scale = advantage_clip
        self.old_weight = old_weight
        self._recorded: dict[str, Tensor] = {}
        self.surrogate.check(self.updates_per_round, type(self).__name__)

    def updates(self, rollouts: Sequence[Rollout], penalty: TermSource = no_terms) -> Iterator[Iterator[Term]]:
        if self.updates_per_round > 1:
            weights = rollouts[0].chain.model.trainable
            self._recorded = {name: weight.detach().clone() for name, weight in weights.items()}
        yield from super().updates(rollouts, penalty)
        self._recorded = {}

    def losses(self, noised: Noised, prediction: Tensor, advantages: Tensor, fresh: bool) -> Tensor:
        log_probs = -self._error(noised, prediction)
        recorded = log_probs.detach() if fresh else self._recorded_log_probs(noised)
        losses = self.surrogate.loss(advantages / self.scale, log_probs, recorded)
        # the distance of a policy from itself has no gradient
        if self.old_weight and not self.old.is_current:
            old = self.old_prediction(noised, prediction)
            losses = losses + self.old_weight * velocity_distance(noised, prediction, old)
        return losses

    def _error(self, noised: Noised, prediction: Tensor) -> Tensor:
        return self.error.of(prediction - noised.clean, *noised.levels)

    @torch.no_grad()
    def _recorded_log_probs(self, noised: Noised) -> Tensor:
        r"""Returns :math:`\ell^0`, with shape :math:`(n)`."""
        with swapped(noised.chain.model, self._recorded):
            return -self._error(noised, noised.denoise())
