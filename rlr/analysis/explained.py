r"""How much of the reward's variance a look-ahead control variate explains, by step.

The control variate of a segment that ends in :math:`x_j` is :math:`c(x_j) = R(\hat x_0(x_j))`. With the correlation
:math:`\rho` of both, a regression leaves the share :math:`1 - \rho^2` of the variance of :math:`R(x_0)` to the likelihood ratio.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlr.rollout import Rollout


@dataclass(frozen=True)
class Explained:
    r"""The share of the reward's variance that the control variate explains.

    Args:
        step: The step :math:`t`, which ends in the state :math:`x_{t-1}`.
        share: The :math:`\rho^2`, corrected for the number of samples; NaN where all rewards, or all controls, are equal.
        error: Its standard error.
    """

    step: int
    share: float
    error: float


@torch.no_grad()
def controls(rollout: Rollout) -> Tensor:
    r"""Returns :math:`c(x_j)` for :math:`j = 0, \dots, T - 1`, with shape :math:`(T, B)`; :math:`c(x_0)` is the reward."""
    later = [rollout.score(rollout.predict(j)) for j in range(1, rollout.chain.steps)]
    return torch.stack([rollout.rewards, *later])


def explained(rollouts: Sequence[Rollout]) -> list[Explained]:
    r"""Returns the shares at steps :math:`T, \dots, 2`, from all samples of the rollouts; at step 1 it is 1."""
    known = torch.cat([controls(rollout) for rollout in rollouts], 1).double()
    return [Explained(j + 1, *correlation(known[0], known[j])) for j in range(len(known) - 1, 0, -1)]


def correlation(rewards: Tensor, controls: Tensor) -> tuple[float, float]:
    r"""Returns the square of the correlation of :math:`n \geq 3` pairs, corrected for :math:`n`, and its standard error."""
    r, c = rewards - rewards.mean(), controls - controls.mean()
    n, square = len(r), (r @ c) ** 2 / ((r @ r) * (c @ c))
    corrected = 1 - (1 - square) * (n - 1) / (n - 2)
    error = 2 * square.sqrt() * (1 - square) / n**0.5
    return corrected.clamp_min(0).item(), max(error.item(), 1 / n)
