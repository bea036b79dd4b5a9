r"""The accuracy of gradient estimates: bias, variance, direction.

The measures of draws :math:`\hat g_i` are

* the share :math:`E[\hat g] \cdot g / \|g\|^2`, 1 for an unbiased estimator;
* the relative bias :math:`\|E[\hat g] - g\| / \|g\|`, from an unbiased estimate of its square;
* the variance :math:`\mathrm{tr}\,\mathrm{Cov}(\hat g) / \|g\|^2`;
* the cosine of one draw with :math:`g`, on average;
* the **deep cosine**: that of one draw with :math:`g_{>h} = \sum_{t > h} g_t`, :math:`h = \lfloor T / 2 \rfloor`, the part of the
  gradient that goes through the weights of the early, noisy steps :math:`T, \dots, h + 1`. Backpropagation truncated to
  :math:`h` steps or fewer leaves all of it out; what cosine it has comes from weights that all steps share.

Where :math:`g` is itself a mean of draws, their variance is taken off wherever a square is formed. The draws are of other noises
than the estimates (:class:`Reference`), or some of them are of the same (:class:`PairedReference`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rlr.analysis.problem import Problem
from rlr.estimators import AllSteps, FirstOrder


def deep(steps: int) -> int:
    r"""Returns :math:`h`, the number of late steps that :math:`g_{>h}` leaves out of a chain of so many."""
    return steps // 2


@dataclass(frozen=True)
class Sample:
    r"""Draws of a random vector, and estimates from their mean of its expectation :math:`m`.

    Args:
        draws: The draws, in float64, with shape :math:`(n, d)`, :math:`n \geq 2`.
    """

    draws: Tensor

    @cached_property
    def mean(self) -> Tensor:
        r"""The mean, with shape :math:`(d)`."""
        return self.draws.mean(0)

    @cached_property
    def centred(self) -> Tensor:
        """The draws less their mean."""
        return self.draws - self.mean

    @property
    def square(self) -> Tensor:
        r"""An unbiased estimate of :math:`|m|^2`: the mean of :math:`d_i \cdot d_j` over :math:`i \neq j`."""
        n = len(self.draws)
        return (n * self.mean.square().sum() - self.draws.square().sum() / n) / (n - 1)

    @property
    def trace(self) -> Tensor:
        r"""An unbiased estimate of :math:`\mathrm{tr}\,\Sigma` for the covariance :math:`\Sigma` of one draw."""
        return self.centred.square().sum() / (len(self.draws) - 1)

    @cached_property
    def squares(self) -> Tensor:
        r"""An unbiased estimate of :math:`\mathrm{tr}(\Sigma^2)`, up to terms in :math:`1 / n`."""
        n, products = len(self.draws), self.centred @ self.centred.T
        # the products with themselves measure the trace of Σ, not of its square
        return (products.square().sum() - products.diagonal().square().sum()) / (n * (n - 1))

    def means_without(self, index: Sequence[int | None]) -> Tensor:
        r"""Returns for each number :math:`i` the mean of the draws but :math:`d_i`, for None of all, with shape (numbers, d)."""
        n = len(self.draws)
        others = [self.mean if i is None else (n * self.mean - self.draws[i]) / (n - 1) for i in index]
        return torch.stack(others)

    def along(self, direction: Tensor) -> Tensor:
        r"""Returns the variance of the mean along a direction, :math:`u^\top \Sigma u / n`."""
        return (self.centred @ direction).var() / len(self.draws)


def squared_distance(one: Sample, other: Sample) -> tuple[Tensor, Tensor]:
    r"""Returns an unbiased estimate of :math:`|m - m'|^2` from two independent samples, and its standard error.

    With :math:`\delta = m - m'` its variance is :math:`4 \, \delta^\top (\Sigma / n + \Sigma' / n') \, \delta +
    2 \, \mathrm{tr}\bigl((\Sigma / n + \Sigma' / n')^2\bigr)` (Hoeffding, 1948).
    """
    n, m = len(one.draws), len(other.draws)
    delta = one.mean - other.mean
    estimate = one.square - 2 * one.mean @ other.mean + other.square
    mixed = (one.centred @ other.centred.T).square().sum() / max((n - 1) * (m - 1), 1)
    trace = one.squares / n**2 + other.squares / m**2 + 2 * mixed / (n * m)
    return estimate, (4 * (one.along(delta) + other.along(delta)) + 2 * trace).clamp_min(0).sqrt()


@dataclass(frozen=True)
class Reference:
    r"""The gradient that estimates are compared with.

    Args:
        full: Draws of :math:`g`.
        deep: Draws of :math:`g_{>h}`.
    """

    full: Sample
    deep: Sample

    @classmethod
    def exact(cls, g: Tensor, deep: Tensor) -> "Reference":
        r"""Returns the reference of a known :math:`g` and :math:`g_{>h}`, each with shape :math:`(d)`."""
        # two draws that agree have no variance
        return cls(Sample(torch.stack([g, g])), Sample(torch.stack([deep, deep])))

    @classmethod
    def drawn(cls, full: Tensor, deep: Tensor) -> "Reference":
        r"""Returns the reference of draws of :math:`g` and of :math:`g_{>h}`, each with shape :math:`(n, d)`.

        Raises:
            ValueError: If the draws do not tell either from zero.
        """
        found = cls(Sample(full.double()), Sample(deep.double()))
        if found.error > 0.5 or relative_error(found.deep) > 0.5:
            raise ValueError(f"{len(full)} draws do not tell the gradient from zero; take more of them")
        return found

    @property
    def error(self) -> float:
        r"""The relative standard error of :math:`\|g\|^2`, which all that is relative to it shares."""
        return relative_error(self.full)

    def distance(self, sample: Sample) -> tuple[Tensor, Tensor]:
        r"""Returns an unbiased estimate of :math:`\|E[\hat g] - g\|^2` and its standard error."""
        return squared_distance(sample, self.full)

    def means(self) -> Tensor:
        r"""Returns for each estimate the mean of draws of :math:`g` on other noises, with shape (1, d) or (n, d)."""
        return self.full.mean[None]

    def deep_means(self) -> Tensor:
        r"""Returns for each estimate the mean of draws of :math:`g_{>h}` on other noises, with the shape of :meth:`means`."""
        return self.deep.mean[None]


@dataclass(frozen=True)
class PairedReference(Reference):
    r"""A reference with one draw on the noises of each estimate.

    The bias is then that of the differences :math:`\hat g_i - g_i`, in which noise that both share cancels. The direction of
    an estimate is compared with the mean of the *other* draws: the mean of all draws would share noise with it.

    Args:
        full: Draws of :math:`g`.
        deep: Draws of :math:`g_{>h}`.
        index: The number of the draw of :math:`g` on the noises of each of the :math:`n` estimates.
        deep_index: The number of the draw of :math:`g_{>h}` on them; None where there is no such draw.
    """

    index: Sequence[int]
    deep_index: Sequence[int | None]

    def distance(self, sample: Sample) -> tuple[Tensor, Tensor]:
        return squared_norm(Sample(sample.draws - self.full.draws[list(self.index)]))

    def means(self) -> Tensor:
        return self.full.means_without(self.index)

    def deep_means(self) -> Tensor:
        return self.deep.means_without(self.deep_index)


def relative_error(sample: Sample) -> float:
    r"""Returns the relative standard error of the estimate of :math:`|m|^2`; infinite if that is not positive."""
    square, error = squared_norm(sample)
    return (error / square).item() if square > 0 else float("inf")


def squared_norm(sample: Sample) -> tuple[Tensor, Tensor]:
    r"""Returns an unbiased estimate of :math:`|m|^2` and its standard error."""
    return squared_distance(sample, Sample(torch.zeros_like(sample.draws[:2])))


def draw_reference(problem: Problem, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    r"""Draws :math:`g` and :math:`g_{>h}` by full backpropagation, each with shape :math:`(n, d)`."""
    full = problem.gradients(FirstOrder(AllSteps()), seeds)
    # on the same noises, what the late steps have of it is the truncated gradient to the last digit
    late = problem.gradients(FirstOrder(deep(problem.chain.steps)), seeds)
    return full, full - late


@dataclass(frozen=True)
class Accuracy:
    """What was measured of one estimator; errors are standard errors, ``least`` and ``most`` two of them apart from the bias."""

    share: float
    share_error: float
    bias: float
    least: float
    most: float
    variance: float
    variance_error: float
    cosine: float
    cosine_error: float
    deep_cosine: float
    deep_cosine_error: float


def accuracy(draws: Tensor, reference: Reference) -> Accuracy:
    r"""Returns what draws :math:`\hat g_i`, with shape :math:`(n, d)`, say of their estimator."""
    sample, full = Sample(draws.double()), reference.full
    distance, error = reference.distance(sample)
    biases = (torch.stack([distance, distance - 2 * error, distance + 2 * error]) / full.square).clamp_min(0).sqrt()
    shares = (sample.draws * reference.means()).sum(1) / full.square
    spreads = sample.centred.square().sum(1) * len(draws) / (len(draws) - 1) / full.square
    cosines = (
        _cosines(sample.draws, reference.means(), full.square),
        _cosines(sample.draws, reference.deep_means(), reference.deep.square),
    )
    means = [_mean(values) for values in (shares, spreads, *cosines)]
    values = (*means[0], *biases, *means[1], *means[2], *means[3])
    return Accuracy(*(float(value) for value in values))


def _cosines(draws: Tensor, means: Tensor, square: Tensor) -> Tensor:
    return (draws * means).sum(1) / (draws.norm(dim=1) * square.sqrt())


def _mean(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean and its standard error."""
    return values.mean(), values.std() / len(values) ** 0.5
