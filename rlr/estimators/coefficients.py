r"""The coefficients of a control variate.

A control variate has :math:`p` features :math:`f_i \in \mathbb{R}^p` for each sample, and the likelihood ratio is multiplied by

.. math:: A_i = R_i - a_i^\top f_i - b_i.

The estimate stays unbiased as long as :math:`a_i` and :math:`b_i` do not depend on the sample's own noise. The variance is
smallest where :math:`a^\top f + b` is the best linear prediction of the reward.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from rlr.distributed import gather, rank
from rlr.estimators.advantages import Baseline
from rlr.estimators.recent import Recent


@dataclass(frozen=True)
class Features:
    r"""The features of a batch.

    Args:
        values: The :math:`f_i`, with shape :math:`(B, p)`, in units of the reward.
        prior: The coefficients :math:`a_0`, :math:`p` of them, that are right where :math:`c` is the expected reward of a state.
    """

    values: Tensor
    prior: tuple[float, ...]


class Coefficients(ABC):
    r"""A choice of :math:`a_i` and :math:`b_i`."""

    within_batch: bool = False
    """Whether :math:`a_i` depends on other samples of the batch."""

    @abstractmethod
    def advantages(self, j: int, rewards: Tensor, features: Features, baseline: Baseline) -> tuple[Tensor, Tensor]:
        r"""Returns the :math:`A_i`, with shape :math:`(B)`, and the :math:`a_i`, with shape :math:`(B, p)`.

        Args:
            j: The number of the state :math:`x_j` in which the segment ends.
            rewards: The :math:`R_i`, with shape :math:`(B)`.
            features: The features of the samples.
            baseline: Subtracts :math:`b_i` from :math:`R_i - a_i^\top f_i`.
        """

    def state_dict(self) -> dict[str, object]:
        """Returns the state that is kept from one update to the next."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:  # noqa: B027 - a hook
        """Restores what :meth:`state_dict` returned."""


class ConstantCoefficients(Coefficients):
    r"""The same :math:`a` in all steps and updates.

    Args:
        a: The coefficients of the features, in the order of :class:`~rlr.estimators.control_variate.LookAhead`: of
            :math:`c(x_j)`, of :math:`c(x_{j+h})` and of the increments, as far as they are features; those not given are 0.
    """

    def __init__(self, a: tuple[float, ...] = (1.0,)) -> None:
        self.a = a

    def advantages(self, j: int, rewards: Tensor, features: Features, baseline: Baseline) -> tuple[Tensor, Tensor]:
        f, p = features.values, len(features.prior)
        a = f.new_tensor([*self.a, *([0.0] * p)][:p])
        return baseline.advantages(rewards - f @ a), a.expand_as(f)


class RunningRegression(Coefficients):
    r"""A regression of the rewards on the features in earlier rollouts, with a prior.

    .. math:: a = \arg\min_a \frac{1}{s^2} \sum_i (R_i - a^\top f_i)^2 + \frac{|a - a_0|^2}{\tau^2}

    with rewards and features centered in each rollout, and :math:`s^2` the variance of what the features leave unexplained. Each
    :math:`j` has its own fit. It does not depend on the samples to which it is applied, for any number of samples.

    In early steps :math:`c(x_j)` explains little of the reward, so that a least-squares fit on a few hundred samples has an error
    above 1. The prior keeps the coefficients at the values of a :math:`c` that is the expected reward until the data say otherwise.

    Args:
        window: The number of rollouts that are kept for each :math:`j`.
        prior_std: The standard deviation :math:`\tau > 0` of the prior. Features are in units of the reward.
    """

    def __init__(self, window: int = 16, prior_std: float = 0.5) -> None:
        if window < 1 or not prior_std > 0:
            raise ValueError(
                f"RunningRegression: expected window >= 1 and prior_std > 0, got window={window}, prior_std={prior_std}"
            )
        self.prior_std = prior_std
        self.seen = Recent(window)

    def advantages(self, j: int, rewards: Tensor, features: Features, baseline: Baseline) -> tuple[Tensor, Tensor]:
        f = features.values
        a = self._fit(j, features.prior).to(f)
        # only after the fit, which must not depend on these samples
        self._remember(j, gather(torch.cat([f, rewards.unsqueeze(1)], 1)).flatten(0, 1))
        return baseline.advantages(rewards - f @ a), a.expand_as(f)

    def _remember(self, j: int, rows: Tensor) -> None:
        finite = rows[rows.isfinite().all(1)].detach().double().cpu()
        if len(finite) > 1:
            self.seen.add(j, finite - finite.mean(0))

    def _fit(self, j: int, prior_mean: tuple[float, ...]) -> Tensor:
        a = prior = torch.tensor(prior_mean, dtype=torch.float64)
        p = len(prior)
        # a resumed run may have other features than before
        fitting = [rows for rows in self.seen.of(j) if rows.shape[1] == p + 1]
        if not fitting:
            return prior
        rows = torch.cat(fitting)
        f, r = rows[:, :p], rows[:, p]
        for _ in range(2):
            # the variance of the rest, first under the prior and then under the first fit
            weight = (r - f @ a).square().mean().clamp_min(1e-12) / self.prior_std**2
            normal = f.T @ f + weight * torch.eye(p, dtype=torch.float64)
            a = torch.linalg.solve(normal, f.T @ r + weight * prior)
        return a

    def state_dict(self) -> dict[str, object]:
        return {"seen": self.seen.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.seen.load_state_dict(state["seen"])  # type: ignore[arg-type]


class LeaveOneOutRegression(Coefficients):
    r"""A least-squares fit for each sample on all *other* samples of its batch, of all ranks; it keeps nothing.

    The baseline is not used: :math:`b_i` is that of the fit. A regression on the whole batch would make :math:`a_i` depend on
    sample :math:`i`, and bias the estimate.
    """

    within_batch = True

    def advantages(self, j: int, rewards: Tensor, features: Features, baseline: Baseline) -> tuple[Tensor, Tensor]:
        r, f = gather(rewards), gather(features.values)
        n, needed = r.numel(), len(features.prior) + 3
        if n < needed:
            raise ValueError(
                f"LeaveOneOutRegression fits {len(features.prior)} coefficients on the other samples and needs a batch of "
                f"{needed}, not {n}; set data.batch_size higher, or use RunningRegression"
            )
        a, b = leave_one_out_regression(r.flatten(), f.flatten(0, 1))
        a, b = a.view_as(f)[rank()], b.view_as(r)[rank()]
        return rewards - (a * features.values).sum(1) - b, a


def leave_one_out_regression(rewards: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    r"""Fits :math:`R \approx a^\top f + b` for each sample on all the *others*.

    The sums over all samples minus the sample's own contribution give all :math:`n` fits at once.

    Args:
        rewards: The :math:`R_i`, with shape :math:`(n)`, :math:`n \geq p + 3`.
        features: The :math:`f_i`, with shape :math:`(n, p)`.

    Returns:
        The :math:`a_i`, with shape :math:`(n, p)`, and the :math:`b_i`, with shape :math:`(n)`.
    """
    r, f = rewards.double(), features.double()
    # shifting both by a constant changes no slope, and keeps the sums of squares from canceling
    r, f = r - r[0], f - f[0]
    n = len(r) - 1
    r_mean, f_mean = (r.sum() - r) / n, (f.sum(0) - f) / n
    squares = f.unsqueeze(2) * f.unsqueeze(1)
    covariance = (f.T @ r - f * r.unsqueeze(1)) / n - f_mean * r_mean.unsqueeze(1)
    variance = (squares.sum(0) - squares) / n - f_mean.unsqueeze(2) * f_mean.unsqueeze(1)
    a = (torch.linalg.pinv(variance, atol=1e-12, hermitian=True) @ covariance.unsqueeze(2)).squeeze(2)
    b = r_mean - (a * f_mean).sum(1) + rewards[0].double() - a @ features[0].double()
    return a.to(rewards.dtype), b.to(rewards.dtype)
