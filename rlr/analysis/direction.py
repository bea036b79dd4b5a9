r"""How well the direction of an estimate agrees with :math:`g`: what is left of bias and variance after the best scaling.

Adam, and any optimizer whose gradient is clipped to a norm, takes steps whose length hardly depends on that of the gradient. So a
factor on an estimate does no harm, and what counts is the error after the best scaling. With
:math:`s = E[\hat g] \cdot g / \|g\|^2`, the mean of :math:`n` estimates has the relative squared error

.. math:: \beta^2 + v / n, \qquad \beta^2 = \frac{\|E[\hat g]\|^2}{s^2 \, \|g\|^2} - 1, \qquad
    v = \frac{\mathrm{tr}\,\mathrm{Cov}(\hat g)}{s^2 \, \|g\|^2}

and the cosine :math:`(1 + \beta^2 + v / n)^{-1/2}` with :math:`g`. :math:`\beta` is the tangent of the angle between
:math:`E[\hat g]` and :math:`g`: the bias that no scaling and no number of samples removes.
"""

from dataclasses import dataclass
from math import hypot

from torch import Tensor

from rlr.analysis.accuracy import Accuracy, Reference, Sample, relative_error

ERRORS = 2
"""The number of standard errors from which on a difference counts."""


@dataclass(frozen=True)
class Direction:
    r"""The error of an estimator after the best scaling.

    Args:
        bias: The :math:`\beta^2 \geq 0`; 0 where the draws do not distinguish it from 0.
        resolution: The smallest :math:`\beta^2` that the draws would distinguish from 0.
        variance: The :math:`v` of one estimate.
        uncertainty: The relative standard error of :math:`v`.
    """

    bias: float
    resolution: float
    variance: float
    uncertainty: float = 0.0

    def error(self, estimates: float) -> float:
        r"""Returns :math:`\beta^2 + v / n` for the mean of :math:`n > 0` estimates."""
        return self.bias + self.variance / estimates

    def cosine(self, estimates: float) -> float:
        r"""Returns the cosine of the mean of :math:`n` estimates with :math:`g`."""
        return float((1 + self.error(estimates)) ** -0.5)


def direction(draws: Tensor, reference: Reference, found: Accuracy, scaled: bool = True) -> Direction | None:
    r"""Returns the error after the best scaling; None where the draws do not distinguish :math:`s` from 0 or less.

    A scale :math:`s` that the draws do not distinguish from 1 counts as 1, and :math:`\beta` is then the bias itself.

    Args:
        draws: The estimates :math:`\hat g_i`, with shape :math:`(n, d)`.
        reference: What they were compared with.
        found: Their accuracy.
        scaled: Whether :math:`s` is 1 for an unbiased estimator; False where each estimate was divided by its norm.
    """
    uncertainty = found.variance_error / found.variance if found.variance else 0.0
    # the reference itself has no distance from itself
    if found.most == 0 or (scaled and abs(found.share - 1) <= ERRORS * found.share_error):
        bias, resolution = found.bias**2 if found.least > 0 else 0.0, found.most**2 - found.bias**2
        return Direction(bias, resolution, found.variance, uncertainty)
    if found.share <= ERRORS * found.share_error:
        return None
    bias, error = _tangent(Sample(draws.double()), reference, found)
    scale_uncertainty = 2 * found.share_error / found.share
    return Direction(
        bias if bias > ERRORS * error else 0.0,
        ERRORS * error,
        found.variance / found.share**2,
        hypot(uncertainty, scale_uncertainty),
    )


def _tangent(sample: Sample, reference: Reference, found: Accuracy) -> tuple[float, float]:
    r"""Returns an estimate of :math:`\beta^2`, and its standard error."""
    ratio = (sample.square / reference.full.square).item() / found.share**2
    # the error of ‖g‖² is that of all estimators alike
    error = abs(ratio) * hypot(relative_error(sample), 2 * found.share_error / found.share)
    return ratio - 1, error
