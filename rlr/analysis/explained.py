r"""How much of the reward's variance a look-ahead control variate explains, by step.

The control variate of a segment that ends in :math:`x_j` is :math:`c(x_j)`, the value that
:class:`~rlr.estimators.control_variate.LookAhead` gives to its prediction of the clean sample: by default the reward
:math:`R(\hat x_0(x_j))` of the one-step prediction, else that of a prediction in several steps, a stand-in or a critic. With the
correlation :math:`\rho` of both, a regression leaves the share :math:`1 - \rho^2` of the variance of :math:`R(x_0)` to the
likelihood ratio.

The parameters of a value that learns must be fixed before the noise of the rollouts is drawn, as in a training: it has learned from
other rollouts than those that it is measured on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlr.estimators.control_variate import LookAhead, Predictions
from rlr.estimators.values import OwnReward
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
def controls(rollout: Rollout, control: LookAhead) -> Tensor:
    r"""Returns :math:`c(x_j)` for :math:`j = 0, \dots, T - 1`, with shape :math:`(T, B)`."""
    predictions = Predictions(control, rollout, [])
    # the samples have their rewards already
    first = rollout.rewards if control.differentiable else predictions.score(rollout.trajectory.states[0])
    return torch.stack([first, *(predictions.value(j) for j in range(1, rollout.chain.steps))])


def explained(rollouts: Sequence[Rollout], control: LookAhead | None = None) -> list[Explained]:
    r"""Returns the shares at steps :math:`T, \dots, 1`, from all samples of the rollouts.

    Args:
        rollouts: The rollouts.
        control: The control variate; by default ``LookAhead()``, with the reward of the one-step prediction. Its value does not
            learn from these rollouts, and must have learned from others.
    """
    known = torch.cat([controls(rollout, control or LookAhead()) for rollout in rollouts], 1).double()
    rewards = torch.cat([rollout.rewards for rollout in rollouts]).to(known)
    return [Explained(j + 1, *correlation(rewards, known[j])) for j in range(len(known) - 1, -1, -1)]


def described(control: LookAhead, steps: int) -> str:
    r"""Returns in words what :math:`c(x_j)` is in a chain of :math:`T` steps."""
    value = "the reward" if isinstance(control.value, OwnReward) else f"the value of {type(control.value).__name__}"
    most = control.steps_from(max(1, steps - 1), steps)
    return f"{value} of a prediction of the clean sample in {'one step' if most == 1 else f'at most {most} steps'}"


def correlation(rewards: Tensor, controls: Tensor) -> tuple[float, float]:
    r"""Returns the square of the correlation of :math:`n \geq 3` pairs, corrected for :math:`n`, and its standard error."""
    r, c = rewards - rewards.mean(), controls - controls.mean()
    n, square = len(r), (r @ c) ** 2 / ((r @ r) * (c @ c))
    corrected = 1 - (1 - square) * (n - 1) / (n - 2)
    error = 2 * square.sqrt() * (1 - square) / n**0.5
    return corrected.clamp_min(0).item(), max(error.item(), 1 / n)
