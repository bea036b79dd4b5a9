r"""Reinforce adjoint matching: a regression on the base model's prediction, corrected by the reward.

Adjoint matching regresses the difference from the base model's velocity on the gradient of the reward along the chain. REINFORCE
estimates the gradient of :math:`E[R(x_0) \mid x_t]` from the value of the reward, which turns the regression into

.. math:: L = \frac{1}{n K} \sum_{i, t} m\Bigl(\hat x_0 - \bigl[\hat x_0^\mathrm{ref}
    + \eta A_i (x_0 - \hat x_0^\mathrm{old})\bigr]\Bigr)

on noised samples :math:`x_t = \alpha_t x_0 + \sigma_t \varepsilon` of the old policy. The bracket has no gradient.

At the fixed point :math:`\hat x_0 - \hat x_0^\mathrm{ref} = \eta \, E[A (x_0 - \hat x_0) \mid x_t]`. To first order in :math:`\eta`
this is the prediction of :math:`p^\mathrm{ref}(x_0) \, e^{\eta A}`, and exactly so for a normal distribution and a linear reward.
Where the old policy is the current one, the gradient is that of :math:`m(\hat x_0 - \hat x_0^\mathrm{ref}) + \eta A \, m(\hat x_0
- x_0)` for squared errors: AWM with an anchor of weight :math:`1 / \eta`.

Bias: the fixed point is the optimum of :math:`\eta E[A] - \mathrm{KL}` to first order in :math:`\eta` only, and the gradient of the
loss is not that of :math:`E[R]`.
"""

from torch import Tensor

from rlr.estimators.forward_process import ForwardProcess, Noised
from rlr.estimators.matching import MatchingEstimator, reference
from rlr.estimators.matching_errors import MatchingError, VelocityError
from rlr.estimators.old_policy import DecayRamp
from rlr.estimators.statistics import GroupStatistics, GroupStd, Statistics


class RAM(MatchingEstimator):
    r"""Reinforce adjoint matching, for any reward and any sampler. The model must keep the base model, as a LoRA does.

    References:
        | Reinforce Adjoint Matching: Scaling RL Post-Training of Diffusion and Flow-Matching Models (Bergmeister et al., 2026)
        | https://arxiv.org/abs/2605.10759, Eq. 17 and Algorithm 1
        | https://github.com/AndreasBergmeister/ram

    Args:
        multiplier: The :math:`\eta > 0` of the reward; the anchor to the base model has the weight 1.
        process: How final samples are noised; by default 4 levels of each.
        error: The squared error :math:`m`; by default that of the velocity.
        statistics: The statistics of rewards; by default those of the groups over their own standard deviations.
        advantage_clip: The largest absolute value of an advantage; None does not clip.
        decay: The decay of the old policy.
        num_minibatches: The number of updates of one pass over a round.
        epochs: The number of passes over a round.
        minibatch: The number of samples of one backward pass; by default the number of samples of a batch.
    """

    of_old_policy = True
    shares_rollouts = False

    def __init__(
        self,
        multiplier: float = 100.0,
        process: ForwardProcess | None = None,
        error: MatchingError | None = None,
        statistics: Statistics | None = None,
        advantage_clip: float | None = None,
        decay: DecayRamp | None = None,
        num_minibatches: int = 1,
        epochs: int = 1,
        minibatch: int | None = None,
    ) -> None:
        super().__init__(
            process or ForwardProcess(levels=4),
            statistics or GroupStatistics(GroupStd(), leave_one_out=False),
            advantage_clip,
            0.0,
            decay or DecayRamp(slope=0.01, limit=0.9),
            num_minibatches,
            epochs,
            minibatch,
        )
        if not multiplier > 0:
            raise ValueError(f"RAM.multiplier: expected a number above 0, got {multiplier}")
        self.multiplier = multiplier
        self.error = error or VelocityError()

    @property
    def needs_reference(self) -> bool:
        return True

    def losses(self, noised: Noised, prediction: Tensor, advantages: Tensor, fresh: bool) -> Tensor:
        weights = self.multiplier * advantages.view(-1, *[1] * (prediction.ndim - 1))
        old = self.old_prediction(noised, prediction)
        target = reference(noised) + weights * (noised.clean - old)
        return self.error.of(prediction - target, *noised.levels)
