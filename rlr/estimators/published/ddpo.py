r"""Denoising diffusion policy optimization: proximal policy optimization of the chain, one step at a time.

The loss is that of :class:`~rlr.estimators.proximal.Proximal`, with :math:`T'` of the steps with noise drawn for each sample.
"""

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators.proximal import Proximal
from rlr.estimators.replay import Minibatch
from rlr.estimators.segments import check_stochastic
from rlr.estimators.statistics import PromptStatistics, Statistics
from rlr.estimators.surrogates import ImportanceRatio, Surrogate


class DDPO(Proximal):
    r"""Clipped policy gradients over rounds of rollouts, for any reward.

    References:
        | Training Diffusion Models with Reinforcement Learning (Black et al., 2023)
        | https://arxiv.org/abs/2305.13301

    Args:
        num_minibatches: The number of updates of one pass over a round.
        epochs: The number of passes over a round.
        minibatch: The number of samples of one backward pass; by default the number of samples of a batch.
        surrogate: The loss; by default ``ImportanceRatio()``. ``ScoreFunction()`` is the score-function form, with one update
            a round.
        statistics: The statistics that turn rewards into advantages; by default ``PromptStatistics()``.
        advantage_clip: The largest absolute value of an advantage; None does not clip.
        timestep_fraction: The share of the steps with noise on which each sample trains, in (0, 1]; the steps are drawn for each
            update.
        mean_over_steps: Whether the loss is the mean over steps, as published. The sum over steps has a
            gradient that is :math:`T` times as large: that of REINFORCE divided by :math:`D`.
    """

    label = "ddpo"

    def __init__(
        self,
        num_minibatches: int = 4,
        epochs: int = 1,
        minibatch: int | None = None,
        surrogate: Surrogate | None = None,
        statistics: Statistics | None = None,
        advantage_clip: float | None = 5.0,
        timestep_fraction: float = 1.0,
        mean_over_steps: bool = True,
    ) -> None:
        surrogate, statistics = surrogate or ImportanceRatio(), statistics or PromptStatistics()
        super().__init__(num_minibatches, epochs, minibatch, surrogate, statistics, advantage_clip)
        if not 0 < timestep_fraction <= 1:
            raise ValueError(f"DDPO.timestep_fraction: expected a number in (0, 1], got {timestep_fraction}")
        self.timestep_fraction = timestep_fraction
        self.mean_over_steps = mean_over_steps

    def check(self, chain: Chain) -> None:
        if not chain.noisy_steps:
            check_stochastic(chain, range(chain.steps), "DDPO")

    def trained(self, chain: Chain, minibatch: Minibatch) -> Tensor:
        share, noisy = minibatch.rollout.share, chain.noisy_steps
        generator = torch.Generator().manual_seed(minibatch.rollout.seed)
        draws = torch.rand(share.total, len(noisy), generator=generator, dtype=torch.float32)[share.numbers]
        steps = torch.zeros(len(draws), chain.steps, dtype=torch.bool)
        steps[:, [t - 1 for t in noisy]] = draws.argsort(1) < self._count(chain)
        return steps

    def scale(self, chain: Chain, t: int) -> float:
        return (1 if self.mean_over_steps else len(chain.noisy_steps)) / self._count(chain)

    def _count(self, chain: Chain) -> int:
        r"""Returns the number :math:`T'` of steps that each sample trains on."""
        return max(1, int(len(chain.noisy_steps) * self.timestep_fraction))
