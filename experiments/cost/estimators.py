r"""The estimators whose bias and variance are measured, under the names of the tables.

:math:`T` is the number of steps of the chain, :math:`h` the length of a half-order segment, 2 in chains of up to ten steps and
4 in longer ones. Some published losses have another scale than the gradient, which is undone by the known factor.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rlr.analysis.candidates import segment_length
from rlr.analysis.problem import Problem
from rlr.estimators import (
    DDPO,
    RLR,
    AlignProp,
    AllSteps,
    DRaFTLV,
    FirstOrder,
    GaussianSteps,
    HalfOrder,
    HalfOrderRLR,
    LookAhead,
    OfficialRLR,
    ReFL,
    ScoreFunction,
    UniformSteps,
    Unscaled,
    Zero,
    ZerothOrder,
)
from rlr.estimators.base import Estimator
from rlr.estimators.pathwise import pathwise

REWARDS = range(1000, 1016)
"""The seeds of the rollouts whose rewards determine the standard deviation that divides an advantage."""


def as_it_is(problem: Problem) -> float:
    """The factor 1 of an estimator in the units of the gradient."""
    return 1.0


def dimensions_and_steps(problem: Problem) -> float:
    r"""The factor :math:`D \, T` of a likelihood that is a mean over dimensions and a loss that is a mean over steps."""
    shape = problem.noises(0)[0, 0]
    return float(shape.numel() * problem.chain.steps)


def and_spread(problem: Problem) -> float:
    """That, times the standard deviation of a batch's rewards, on average over rollouts."""
    spreads = [problem.rewards(seed).double().std(correction=0).item() for seed in REWARDS]
    return dimensions_and_steps(problem) * sum(spreads) / len(spreads)


def twenty(problem: Problem) -> float:
    """Undoes the 0.05 on the first-order term of the released code, and keeps its proportions."""
    return 20.0


@dataclass(frozen=True)
class Entry:
    r"""An estimator under a name.

    Args:
        name: The name.
        make: Makes it, anew for each estimate, for a chain of :math:`T` steps.
        scale: The factor that puts it into the units of the gradient.
        eta: The :math:`\eta` of the chain that it is measured on.
        remark: What the description of its run adds.
    """

    name: str
    make: Callable[[int], Estimator]
    scale: Callable[[Problem], float] = as_it_is
    eta: float = 1.0
    remark: str = ""


def _letter(steps: int) -> Estimator:
    zeroth = ZerothOrder(antithetic=False, per_step=True, baseline=Zero())
    return RLR(segment_length(steps), zeroth=zeroth, baseline=Zero())


def _first_update(steps: int) -> Estimator:
    return DDPO(1, surrogate=ScoreFunction(), statistics=Unscaled(), advantage_clip=None)


REMARK = ", last step of the estimator with eta = 0"
"""The remark on the released code."""

FULL = Entry("FirstOrder(all)", lambda T: FirstOrder(AllSteps()))

ENTRIES = (
    FULL,
    Entry("FirstOrder(1)", lambda T: FirstOrder(1)),
    Entry("FirstOrder(T/2)", lambda T: FirstOrder(T // 2)),
    Entry("FirstOrder(uniform)", lambda T: FirstOrder(UniformSteps())),
    Entry("FirstOrder(Gaussian)", lambda T: FirstOrder(GaussianSteps(0.16 * T, 0.1 * T))),
    Entry("AlignProp", lambda T: AlignProp()),
    Entry("DRaFTLV(2)", lambda T: DRaFTLV(2)),
    Entry("ReFL(T/4)", lambda T: ReFL(max(1, round(T / 4)))),
    Entry("HalfOrder(1), REINFORCE", lambda T: HalfOrder(1)),
    Entry("HalfOrder(h)", lambda T: HalfOrder(segment_length(T))),
    Entry("HalfOrder(1), look-ahead", lambda T: HalfOrder(1, control=LookAhead())),
    Entry("DDPO, first gradient, x DT", _first_update, dimensions_and_steps),
    Entry("DDPO as published, first gradient, x DTs", lambda T: DDPO(), and_spread),
    Entry("ZerothOrder, two-point", lambda T: ZerothOrder()),
    Entry("ZerothOrder, one-point", lambda T: ZerothOrder(antithetic=False)),
    Entry("RLR(h)", lambda T: RLR(segment_length(T))),
    Entry("RLR(h), to the letter", _letter),
    Entry("RLR(h) without zeroth order (V2)", lambda T: RLR(segment_length(T), zeroth=False)),
    Entry("RLR without half order (V3)", lambda T: RLR(segment_length(T), half=False)),
    Entry("HalfOrderRLR(h), one segment", lambda T: HalfOrderRLR(segment_length(T))),
    Entry("HalfOrderRLR(h), one, look-ahead", lambda T: HalfOrderRLR(segment_length(T), control=LookAhead())),
    Entry("HalfOrderRLR(h), all segments", lambda T: HalfOrderRLR(segment_length(T), None)),
    Entry("HalfOrderRLR(1), all segments", lambda T: HalfOrderRLR(1, None)),
    Entry("HalfOrderRLR(h), all, look-ahead", lambda T: HalfOrderRLR(segment_length(T), None, control=LookAhead())),
    Entry("HalfOrderRLR(1), all, look-ahead", lambda T: HalfOrderRLR(1, None, control=LookAhead())),
    Entry(
        "HalfOrderRLR(T-2) after 2 steps, look-ahead, weight 0.01",
        lambda T: HalfOrderRLR(T - 2, None, 2, control=LookAhead(), half_weight=0.01),
    ),
    Entry("HalfOrderRLR(2) after 2 steps, pathwise half, clipped", lambda T: pathwise()),
    Entry("OfficialRLR, aesthetic, x 20", lambda T: OfficialRLR(2, 0.05, 0.001), twenty, 0.05, REMARK),
    Entry("OfficialRLR, HPSv2, x 20", lambda T: OfficialRLR(1, 0.05, 1.0), twenty, remark=REMARK),
)
