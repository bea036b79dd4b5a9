r"""The timed estimators, and the minimal work of each.

A chain of :math:`T` steps has plain passes (forward, no graph) and graph passes (forward and backward). The least
number is what the estimate itself needs, had one memory without end: a recorded rollout may keep the graph of any of
its steps. What an estimator does beyond that is overhead: a rollout without graph and then a replay, for instance, so
that one graph is alive at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch

from experiments.cost.points import Points, reward
from rlr.chain import Chain
from rlr.estimators import (
    DDPO,
    RLR,
    AlignProp,
    AllSteps,
    DRaFTLV,
    FirstOrder,
    HalfOrder,
    HalfOrderRLR,
    LookAhead,
    OfficialRLR,
    ReFL,
    ZerothOrder,
)
from rlr.estimators.base import Estimator
from rlr.rollout import Rollout, unconditional
from rlr.samplers import DDIM


@dataclass(frozen=True)
class Needs:
    """The least an estimate needs.

    Args:
        plain: Passes of the network without a graph.
        graph: Passes of the network with a graph and its backward.
        scored: Decodings and rewards without a graph.
        differentiated: Decodings and rewards with a graph and its backward.
    """

    plain: int
    graph: int
    scored: int
    differentiated: int


@dataclass(frozen=True)
class Case:
    """An estimator under a name, with what it needs in a chain of so many steps."""

    name: str
    make: Callable[[], Estimator]
    needs: Callable[[int], Needs]


LENGTH = 4
SEED = 0
"""Decides what the estimators draw in the update that is timed."""


def _first_order(steps: int) -> Callable[[int], Needs]:
    return lambda total: Needs(total - steps, steps, 0, 1)


def _look_ahead(total: int, length: int) -> Needs:
    # the prediction in which a segment ends is the first step of the next one, and is differentiated once more
    segments = ceil((total - 1) / length)
    return Needs(0, total + segments, 1, 1 + segments)


def _align_prop(total: int) -> Needs:
    kept = len(AlignProp().kept(total, SEED))
    return Needs(total - kept, kept, 0, 1)


def _rollout(estimator: Estimator, total: int) -> Rollout:
    """Returns a rollout for which the estimator draws what it draws in the update that is timed."""
    chain = Chain(Points(1), DDIM(total))
    noises = torch.zeros((total + 1, 1, *chain.model.latent_shape(chain.model.size)), dtype=torch.float64)
    return estimator.rollout(chain, [""], noises, unconditional(reward), SEED)


def _refl(total: int) -> Needs:
    # the estimator does not use the steps after the drawn one
    estimator = ReFL(2)
    return Needs(total - estimator.step(_rollout(estimator, total)), 1, 0, 1)


def _official(total: int) -> Needs:
    # a draw of the last step gives no term; steps drawn twice are backpropagated twice
    estimator = OfficialRLR(2)
    drawn = [t for t in estimator.steps(_rollout(estimator, total)) if t > 1]
    return Needs(total - 1 - len(set(drawn)), 1 + len(drawn), 0, 1)


CASES = (
    Case("FirstOrder(1)", lambda: FirstOrder(1), _first_order(1)),
    Case("FirstOrder(5)", lambda: FirstOrder(5), _first_order(5)),
    Case("FirstOrder(all)", lambda: FirstOrder(AllSteps()), lambda total: Needs(0, total, 0, 1)),
    Case("HalfOrder(1), every step", lambda: HalfOrder(1), lambda total: Needs(0, total, 1, 0)),
    Case("ZerothOrder, two-point", ZerothOrder, lambda total: Needs(2 * total, 0, 2, 0)),
    Case("ZerothOrder, one-point", lambda: ZerothOrder(antithetic=False), lambda total: Needs(2 * total, 0, 2, 0)),
    Case("RLR", lambda: RLR(LENGTH), lambda total: Needs(3 * total - 1 - LENGTH, 1 + LENGTH, 2, 1)),
    Case(
        "RLR without zeroth order (V2)",
        lambda: RLR(LENGTH, zeroth=False),
        lambda total: Needs(total - 1 - LENGTH, 1 + LENGTH, 0, 1),
    ),
    Case(
        "RLR without half order (V3)",
        lambda: RLR(LENGTH, half=False),
        lambda total: Needs(3 * total - 1, 1, 2, 1),
    ),
    Case(
        "HalfOrderRLR, one segment",
        lambda: HalfOrderRLR(LENGTH),
        lambda total: Needs(total - 1 - LENGTH, 1 + LENGTH, 0, 1),
    ),
    Case("HalfOrderRLR, all segments", lambda: HalfOrderRLR(LENGTH, segments=None), lambda t: Needs(0, t, 0, 1)),
    Case(
        "HalfOrderRLR, all segments, look-ahead",
        lambda: HalfOrderRLR(LENGTH, segments=None, control=LookAhead()),
        lambda total: _look_ahead(total, LENGTH),
    ),
    Case("DDPO, first update", lambda: DDPO(1), lambda total: Needs(0, total, 1, 0)),
    Case("AlignProp", AlignProp, _align_prop),
    Case("DRaFTLV(2)", lambda: DRaFTLV(2), lambda total: Needs(total - 1, 3, 0, 3)),
    Case("ReFL(2)", lambda: ReFL(2), _refl),
    Case("OfficialRLR(2)", lambda: OfficialRLR(2), _official),
)
