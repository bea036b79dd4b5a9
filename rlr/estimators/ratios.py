r"""The ratio of a step's likelihoods, which clipped policy gradients compare with 1."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators.replay import Recorded, mean_log_prob
from rlr.gaussian import Gaussian
from rlr.schedules import Grid


class Ratio(ABC):
    r"""A choice of the logarithms :math:`\ell_t - \ell_t^0` of the ratio, and of the weights of the steps."""

    @abstractmethod
    def logarithms(self, transition: Gaussian, trajectory: Recorded, t: int) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\ell_t` with a graph and :math:`\ell_t^0`, each with shape :math:`(b)`.

        Args:
            transition: The transition of step :math:`t` under the current weights.
            trajectory: The recorded trajectory.
            t: The step.
        """

    def weight(self, grid: Grid, t: int) -> float:
        r"""Returns the weight of step :math:`t`, by default 1."""
        return 1.0

    def check(self, chain: Chain) -> None:  # noqa: B027 - a hook
        """Raises a ``ValueError`` that names the remedy if the ratio does not follow from the rollouts of the chain."""


class LikelihoodRatio(Ratio):
    r"""The ratio of the likelihoods, each a mean over dimensions.

    With the recorded noise :math:`z` its logarithm is :math:`\overline{z (\mu - \mu_0)} / \sigma - \overline{(\mu - \mu_0)^2} / 2
    \sigma^2`, whose mean is negative and larger in steps with less noise.
    """

    def logarithms(self, transition: Gaussian, trajectory: Recorded, t: int) -> tuple[Tensor, Tensor]:
        return mean_log_prob(transition, trajectory.states[t - 1]), trajectory.log_probs[t - 1]


class NormalizedRatio(Ratio):
    r"""GRPO-Guard's ratio, whose logarithm :math:`\overline{z (\mu - \mu_0)}` has the mean 0 and one scale in all steps.

    The published code adds :math:`\overline{(\mu - \mu_0)^2} / 2 \sigma^2` to the logarithm of the likelihood ratio and multiplies
    the sum by :math:`\sigma`, which is the same. The loss of a step is divided by its length :math:`\tau_t - \tau_{t-1}` with
    :math:`\tau = \sigma / (\alpha + \sigma)`, the time of a rectified flow.

    References:
        | GRPO-Guard: Mitigating Implicit Over-Optimization in Flow Matching via Regulated Clipping (Wang et al., 2025)
        | https://arxiv.org/abs/2510.22319
    """

    def check(self, chain: Chain) -> None:
        if chain.storage.bfloat16:
            raise ValueError(
                "NormalizedRatio finds the recorded means from states and noises, and rounded ones do not determine them; set "
                "memory.trajectories.bfloat16 to false (on_cpu saves the memory without rounding), or use LikelihoodRatio"
            )

    def logarithms(self, transition: Gaussian, trajectory: Recorded, t: int) -> tuple[Tensor, Tensor]:
        noises = trajectory.noises[t - 1]
        recorded = trajectory.states[t - 1] - transition.std * noises
        now = (noises * (transition.mean - recorded)).flatten(1).mean(1)
        return now, torch.zeros_like(now)

    def weight(self, grid: Grid, t: int) -> float:
        start, stop = (grid.sigmas[k] / (grid.alphas[k] + grid.sigmas[k]) for k in (t, t - 1))
        return 1 / (start - stop)
