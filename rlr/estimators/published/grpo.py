r"""Group relative policy optimization of the chain, as in Flow-GRPO.

It is :class:`~rlr.estimators.proximal.Proximal` with advantages within the samples of one prompt, on the steps that have noise, and
with a penalty on the divergence of each step from the base model,

.. math:: L_{\mathrm{KL}} = \frac{\beta}{n \, T'} \sum_{i = 1}^{n} \sum_{t}
    \frac{|\mu_t(x_t; \theta) - \mu_t^0(x_t)|^2}{2 \sigma_t^2 D},

a mean over dimensions like the likelihoods. Its fast forms have a :class:`~rlr.samplers.Windowed` sampler, with noise in a window
of steps alone.

The estimate is biased by what follows the first update of a round, by the standard deviations that divide the advantages and by the
direct form of the penalty; without these the gradient is that of REINFORCE divided by :math:`D \, T'`. In a window it is that of
the window's steps.
"""

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators.divergence import base_mean
from rlr.estimators.proximal import Proximal
from rlr.estimators.ratios import Ratio
from rlr.estimators.replay import Minibatch, Recorded
from rlr.estimators.statistics import GroupStatistics, RoundStd, Statistics
from rlr.estimators.surrogates import ImportanceRatio, Surrogate
from rlr.gaussian import Gaussian


class GRPO(Proximal):
    r"""Clipped policy gradients with advantages within groups, for any reward.

    References:
        | Flow-GRPO: Training Flow Matching Models via Online RL (Liu et al., 2025)
        | https://arxiv.org/abs/2505.05470

    Args:
        num_minibatches: The number of updates of one pass over a round, 2 as published.
        epochs: The number of passes over a round.
        minibatch: The number of samples of one backward pass; by default the number of samples of a batch.
        surrogate: The loss; by default ``ImportanceRatio(1e-4)``; published are 1e-4 with and 1e-5 without guidance.
        statistics: The statistics that turn rewards into advantages; by default the mean of the group and the standard deviation
            of the round, as published.
        advantage_clip: The largest absolute value of an advantage; None does not clip.
        skip_last: The number of last steps on which it does not train, 1 as published.
        kl: The weight :math:`\beta \geq 0` of the penalty; published are 0.04 for GenEval and OCR, 0.01 for PickScore, and 0 for
            the fast forms. Each step then costs a further pass, of the base model.
        ratio: The ratio; by default ``LikelihoodRatio()``.
    """

    label = "grpo"

    def __init__(
        self,
        num_minibatches: int = 2,
        epochs: int = 1,
        minibatch: int | None = None,
        surrogate: Surrogate | None = None,
        statistics: Statistics | None = None,
        advantage_clip: float | None = 5.0,
        skip_last: int = 1,
        kl: float = 0.04,
        ratio: Ratio | None = None,
    ) -> None:
        surrogate = surrogate or ImportanceRatio()
        statistics = statistics or GroupStatistics(RoundStd(), leave_one_out=False)
        super().__init__(num_minibatches, epochs, minibatch, surrogate, statistics, advantage_clip, ratio)
        if kl < 0 or skip_last < 0:
            name = type(self).__name__
            raise ValueError(f"{name} needs kl >= 0 and skip_last >= 0, and got {kl} and {skip_last}")
        self.skip_last = skip_last
        self.kl = kl

    def check(self, chain: Chain) -> None:
        if not self._steps(chain):
            name, sampler = type(self).__name__, type(chain.sampler).__name__
            raise ValueError(
                f"{name} needs steps with noise before the last {self.skip_last}, and the sampler {sampler} has none (σ = 0); set "
                f"{sampler}'s eta (or noise level) above 0, or skip_last lower"
            )
        if self.kl and not chain.model.has_reference:
            raise ValueError(
                f"{type(self).__name__}.kl: the penalty needs a base model, and this model keeps none; use a LoRA, or set kl to 0"
            )

    def trained(self, chain: Chain, minibatch: Minibatch) -> Tensor:
        steps = torch.zeros(len(minibatch.rollout), chain.steps, dtype=torch.bool)
        steps[:, [t - 1 for t in self._steps(chain)]] = True
        return steps

    def scale(self, chain: Chain, t: int) -> float:
        return self.ratio.weight(chain.grid, t) / len(self._steps(chain))

    def penalize(self, chain: Chain, transition: Gaussian, trajectory: Recorded, t: int) -> Tensor | None:
        if not self.kl:
            return None
        divergence = transition.divergence(base_mean(chain, trajectory, t)) / transition.mean[0].numel()
        return self.kl / len(self._steps(chain)) * divergence

    def _steps(self, chain: Chain) -> list[int]:
        """Returns the steps on which it trains."""
        return [t for t in chain.noisy_steps if t > self.skip_last]
