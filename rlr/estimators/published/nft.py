r"""DiffusionNFT: the pre-training loss of a positive and of a negative branch, mixed by the reward.

The branches are two mixtures of the current and the old policy's predictions,

.. math:: \hat x_0^+ = (1 - \beta) \hat x_0^\mathrm{old} + \beta \hat x_0, \qquad
    \hat x_0^- = (1 + \beta) \hat x_0^\mathrm{old} - \beta \hat x_0,

and with :math:`r_i = \frac12 (1 + A_i / c)` in [0, 1] of advantages clipped at :math:`\pm c` the loss is

.. math:: L = \frac{1}{n K} \sum_{i, t} \frac{c}{\beta} \bigl( r_i \, m(\hat x_0^+ - x_0) + (1 - r_i) \, m(\hat x_0^- - x_0) \bigr)
    + \lambda |v - v^\mathrm{ref}|^2 / D.

Samples :math:`x_0` are those of the old policy. Where the current policy equals the old one, the first term has the gradient of
:math:`\sum A_i m(\hat x_0 - x_0)`. Its minimum, for squared errors, is

.. math:: \hat x_0 = \hat x_0^\mathrm{old} + \tfrac{1}{\beta} E\bigl[(2 r - 1) (x_0 - \hat x_0^\mathrm{old}) \bigm| x_t\bigr].

Bias: the update improves the policy in the direction of the reward with a step of :math:`1 / \beta`; it is not the gradient of
:math:`E[R]`, and the old policy's samples lag behind.
"""

from torch import Tensor

from rlr.estimators.forward_process import ForwardProcess, Noised
from rlr.estimators.matching import MatchingEstimator
from rlr.estimators.matching_errors import MatchingError, NormalizedError
from rlr.estimators.old_policy import DecayRamp
from rlr.estimators.statistics import GroupStatistics, RoundStd, Statistics


class DiffusionNFT(MatchingEstimator):
    r"""Diffusion negative-aware fine-tuning, for any reward and any sampler.

    References:
        | DiffusionNFT: Online Diffusion Reinforcement with Forward Process (Zheng et al., 2025)
        | https://arxiv.org/abs/2509.16117
        | https://github.com/NVlabs/DiffusionNFT

    Args:
        beta: The :math:`\beta > 0`; published 1, for text rendering and for several rewards 0.1.
        process: How final samples are noised; by default all levels of the grid.
        error: The error :math:`m`.
        statistics: The statistics of rewards; by default those of the groups over the standard deviation of the round.
        advantage_clip: The :math:`c` at which advantages are clipped.
        kl: The weight :math:`\lambda` of the squared difference from the base model's velocity.
        decay: The decay of the old policy; published also ``DecayRamp(slope=0.0075, limit=0.999, start=75)``.
        num_minibatches: The number of updates of one pass over a round.
        epochs: The number of passes over a round.
        minibatch: The number of samples of one backward pass; by default the number of samples of a batch.
    """

    of_old_policy = True
    shares_rollouts = False

    def __init__(
        self,
        beta: float = 1.0,
        process: ForwardProcess | None = None,
        error: MatchingError | None = None,
        statistics: Statistics | None = None,
        advantage_clip: float = 5.0,
        kl: float = 1e-4,
        decay: DecayRamp | None = None,
        num_minibatches: int = 1,
        epochs: int = 1,
        minibatch: int | None = None,
    ) -> None:
        super().__init__(
            process or ForwardProcess(),
            statistics or GroupStatistics(RoundStd(), leave_one_out=False),
            advantage_clip,
            kl,
            decay or DecayRamp(slope=0.001, limit=0.5),
            num_minibatches,
            epochs,
            minibatch,
        )
        if not beta > 0:
            raise ValueError(f"DiffusionNFT.beta: expected a number above 0, got {beta}")
        self.beta = beta
        self.scale = advantage_clip
        self.error = error or NormalizedError()

    def losses(self, noised: Noised, prediction: Tensor, advantages: Tensor, fresh: bool) -> Tensor:
        old, beta, c = self.old_prediction(noised, prediction), self.beta, self.scale
        r = (1 + advantages / c) / 2
        positive = (1 - beta) * old + beta * prediction
        negative = (1 + beta) * old - beta * prediction
        positive_error, negative_error = (
            self.error.of(branch - noised.clean, *noised.levels) for branch in (positive, negative)
        )
        return c / beta * (r * positive_error + (1 - r) * negative_error)
