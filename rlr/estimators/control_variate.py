r"""A look-ahead control variate: it reduces the variance of the half-order term nearly to that of full backpropagation.

Let :math:`c(x_j) = R(\hat x_0(x_j))` be the reward of the one-step prediction of the clean sample with frozen weights. For
a segment that ends in :math:`x_j = M + \sigma z`, Gaussian integration by parts gives
:math:`E[c(x_j) \nabla_\theta \log \mathcal{N}(x_j; M, \sigma^2)] = E[(\partial c / \partial x_j)^\top \partial M / \partial
\theta]`, so

.. math:: \hat g = (R - a \, c(x_j) - b) \, \nabla_\theta \log \mathcal{N}(x_j; M, \sigma^2)
    + a \, \Bigl(\frac{\partial c}{\partial x_j}\Bigr)^\top \frac{\partial M}{\partial \theta}

is unbiased for every :math:`a` and :math:`b` that do not depend on the sample's own noise. The part of :math:`R` that :math:`c`
predicts moves from the first term, which has a large variance, to the second term, which has a small one.

The two halves have weights of their own, :math:`\lambda_\mathrm{ratio}` for the first and :math:`\lambda_\mathrm{path}` for
the second. With both 1 the estimate is unbiased. A smaller :math:`\lambda_\mathrm{ratio}` trades variance for bias and keeps
the second half whole.
"""

import torch
from torch import Tensor

from rlr.distributed import gather, rank
from rlr.estimators.base import Term
from rlr.estimators.segments import Segment
from rlr.rollout import Rollout


def leave_one_out_regression(rewards: Tensor, controls: Tensor) -> tuple[Tensor, Tensor]:
    r"""Fits :math:`R \approx a c + b` for each sample on all the *others*.

    The sums over all samples minus the sample's own contribution give all :math:`n` fits at once. A regression on the whole
    batch would make :math:`a_i` depend on sample :math:`i`, and bias the estimate.

    Args:
        rewards: The :math:`R_i`, with shape :math:`(n)`, :math:`n \geq 4`.
        controls: The :math:`c_i`, with shape :math:`(n)`.

    Returns:
        The :math:`a_i` and :math:`b_i`, each with shape :math:`(n)`.
    """
    r, c = rewards.double(), controls.double()
    # shifting both by a constant changes no slope, and keeps the sums of squares from canceling
    r, c = r - rewards[0].double(), c - controls[0].double()
    n = len(r) - 1
    r_mean, c_mean = (r.sum() - r) / n, (c.sum() - c) / n
    covariance = ((r * c).sum() - r * c) / n - r_mean * c_mean
    variance = ((c * c).sum() - c * c) / n - c_mean**2
    a = torch.where(variance > 1e-12, covariance / variance.clamp_min(1e-12), 0.0)
    b = r_mean - a * c_mean + rewards[0].double() - a * controls[0].double()
    return a.to(rewards.dtype), b.to(rewards.dtype)


def leave_one_out_offset(rewards: Tensor, controls: Tensor, a: float) -> tuple[Tensor, Tensor]:
    r"""Returns the constant :math:`a_i = a` and :math:`b_i = \frac{1}{n-1} \sum_{j \neq i} (R_j - a c_j)`."""
    rest = rewards - a * controls
    n = len(rest)
    return torch.full_like(rewards, a), (rest.sum() - rest) / (n - 1)


class LookAhead:
    r"""The control variate :math:`a \, c(x_j)`, with :math:`c` the reward of the predicted clean sample.

    Args:
        coefficient: A constant :math:`a`; by default it is regressed for each sample on the others of the batch (of
            all ranks), and so is :math:`b`. A constant of 1 increases the variance once the weights have moved far and
            the prediction is no longer close to the sample.
        ratio_weight: The weight :math:`\lambda_\mathrm{ratio} \geq 0` of the likelihood-ratio half; 0 leaves the pathwise half
            alone, which is biased.
        path_weight: The weight :math:`\lambda_\mathrm{path} \geq 0` of the pathwise half.

    Raises:
        ValueError: If a weight is negative, or both are 0.
    """

    def __init__(self, coefficient: float | None = None, ratio_weight: float = 1.0, path_weight: float = 1.0) -> None:
        if min(ratio_weight, path_weight) < 0 or not ratio_weight + path_weight > 0:
            raise ValueError(
                "LookAhead: expected ratio_weight and path_weight of at least 0, not both 0, got "
                f"{ratio_weight} and {path_weight}"
            )
        self.coefficient = coefficient
        self.ratio_weight = ratio_weight
        self.path_weight = path_weight

    def term(self, rollout: Rollout, segment: Segment, weight: float = 1.0) -> Term:
        r"""Returns the half-order term of a segment with the control variate, times ``weight``."""
        x, rewards = rollout.trajectory.states[segment.stop], rollout.rewards
        c, slope = self._predict(rollout, segment.stop)
        a, b = self._fit(rewards, c)
        transition = rollout.replay(*segment)
        ratio = (rewards - a * c - b) * transition.log_prob(x)
        path = a * (slope * transition.mean).flatten(1).sum(1)
        loss = -(self.ratio_weight * ratio + self.path_weight * path).mean()
        return Term("half_order", weight * loss, segment.steps)

    def _predict(self, rollout: Rollout, j: int) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`c(x_j)`, with shape :math:`(B)`, and :math:`\partial c / \partial x_j`, with that of the state."""
        with torch.enable_grad():
            x = rollout.trajectory.states[j].detach().requires_grad_()
            c = rollout.score(rollout.chain.look_ahead(x, j, rollout.trajectory.condition))
            (slope,) = torch.autograd.grad(c.sum(), x)
        return c.detach(), slope

    def _fit(self, rewards: Tensor, controls: Tensor) -> tuple[Tensor, Tensor]:
        r, c = gather(rewards), gather(controls)
        needed = 4 if self.coefficient is None else 2
        if r.numel() < needed:
            raise ValueError(
                f"LookAhead fits its coefficients on the other samples and needs a batch of {needed}, not {r.numel()}; "
                "set data.batch_size higher or use HalfOrder without a control variate"
            )
        if self.coefficient is None:
            a, b = leave_one_out_regression(r.flatten(), c.flatten())
        else:
            a, b = leave_one_out_offset(r.flatten(), c.flatten(), self.coefficient)
        return a.view_as(r)[rank()], b.view_as(r)[rank()]
