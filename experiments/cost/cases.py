r"""The timed estimators, and the minimal work of each.

A chain of :math:`T` steps has plain passes (forward, no graph) and graph passes (forward and backward). The least
number is what the estimate itself needs, had one memory without end: a recorded rollout may keep the graph of any of
its steps. What an estimator does beyond that is overhead: a rollout without graph and then a replay, for instance, so
that one graph is alive at a time.

Published estimators have their default settings, but for the numbers of steps and levels of ``configs/image/tiny_*.yaml``. Those
with several updates a round make the first one. Those that match final samples are timed in a later round, in which the old policy
differs from the current one and costs passes of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch

from experiments.cost.points import Points, reward
from rlr.chain import Chain
from rlr.estimators import (
    AWM,
    DDPO,
    GRPO,
    RAM,
    RLR,
    AlignProp,
    AllSteps,
    DiffusionNFT,
    DirectAlign,
    DRaFTLV,
    DRTune,
    FirstOrder,
    ForwardProcess,
    HalfOrder,
    HalfOrderRLR,
    HybridPolicyGradient,
    LeapAlign,
    LookAhead,
    OfficialRLR,
    ReFL,
    ZerothOrder,
)
from rlr.estimators.base import Estimator
from rlr.estimators.matching import MatchingEstimator
from rlr.estimators.pathwise import pathwise
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


Prepare = Callable[[Estimator, Chain], None]
"""Brings a new estimator into the state of the update that is timed."""


def as_new(estimator: Estimator, chain: Chain) -> None:
    """Leaves an estimator as it is: its first update is timed."""


def after_a_round(estimator: Estimator, chain: Chain) -> None:
    """Makes the old policy another one than the current one, as after a first round with a decay above 0."""
    assert isinstance(estimator, MatchingEstimator)
    estimator.old.begin(chain.model)
    estimator.old.moved()


@dataclass(frozen=True)
class Case:
    r"""A timed estimator.

    Args:
        name: The name.
        make: Makes it, anew for each update.
        needs: Returns the least that it needs in a chain of :math:`T` steps.
        prepare: Brings it into the state of the update that is timed; by default the first one.
    """

    name: str
    make: Callable[[], Estimator]
    needs: Callable[[int], Needs]
    prepare: Prepare = as_new

    def estimator(self, chain: Chain) -> Estimator:
        """Returns the estimator in the state of the update that is timed."""
        made = self.make()
        self.prepare(made, chain)
        return made


LENGTH = 4
LEVELS = 4
"""The levels at which estimators that match final samples compare each of them."""
SEED = 0
"""Decides what the estimators draw in the update that is timed."""


def _first_order(steps: int) -> Callable[[int], Needs]:
    return lambda total: Needs(total - steps, steps, 0, 1)


def _look_ahead(total: int, length: int) -> Needs:
    # the prediction in which a segment ends is the first step of the next one, and is differentiated once more
    segments = ceil((total - 1) / length)
    return Needs(0, total + segments, 1, 1 + segments)


def _pathwise(total: int) -> Needs:
    # beyond what a prediction in one step needs: the further passes of each prediction
    estimator = pathwise()
    control, segments = estimator.half.control, estimator.half.partition(_chain(total))
    assert control is not None
    further = sum(control.steps_from(segment.stop, total) - 1 for segment in segments)
    return Needs(0, total + len(segments) + further, 0, 1 + len(segments))


def _align_prop(total: int) -> Needs:
    kept = len(AlignProp().kept(total, SEED))
    return Needs(total - kept, kept, 0, 1)


def _chain(total: int) -> Chain:
    return Chain(Points(1), DDIM(total))


def _rollout(estimator: Estimator, total: int) -> Rollout:
    """Returns a rollout for which the estimator draws what it draws in the update that is timed."""
    chain = _chain(total)
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


def _grpo(total: int) -> Needs:
    # the base model's mean in every trained step, for the penalty; the last step is not trained
    return Needs(total, total - 1, 1, 0)


def _dr_tune(total: int) -> Needs:
    # the steps after that of the prediction are not used
    estimator = _dr_tuned()
    trained, m = estimator.draw(_rollout(estimator, total))
    kept = sum(t >= m for t in trained)
    return Needs(total - m + 1 - kept, kept, 0, 1)


def _dr_tuned() -> DRTune:
    return DRTune(window=4)


def _matching(total: int) -> Needs:
    # noised samples are no states of the rollout; the old policy and the base model predict at each level
    return Needs(total + 2 * LEVELS, LEVELS, 1, 0)


def _process() -> ForwardProcess:
    return ForwardProcess(LEVELS)


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
    Case("HalfOrderRLR, shipped look-ahead", pathwise, _pathwise),
    Case("DDPO, first update", lambda: DDPO(1), lambda total: Needs(0, total, 1, 0)),
    Case("AlignProp", AlignProp, _align_prop),
    Case("DRaFTLV(2)", lambda: DRaFTLV(2), lambda total: Needs(total - 1, 3, 0, 3)),
    Case("ReFL(2)", lambda: ReFL(2), _refl),
    Case("OfficialRLR(2)", lambda: OfficialRLR(2), _official),
    # the two steps start in recorded states, so that a rollout may keep their graphs
    Case("LeapAlign", LeapAlign, lambda total: Needs(total - 2, 2, 0, 1)),
    Case("DRTune(2)", _dr_tuned, _dr_tune),
    Case("DirectAlign(2)", lambda: DirectAlign(2), lambda total: Needs(total, 2, 0, 2)),
    Case("GRPO, first update", GRPO, _grpo),
    Case("HybridPolicyGradient", HybridPolicyGradient, lambda total: Needs(0, total, 0, 1)),
    Case("DiffusionNFT(4 levels)", lambda: DiffusionNFT(process=_process()), _matching, after_a_round),
    Case("AWM(4 levels)", lambda: AWM(process=_process(), num_minibatches=1), _matching, after_a_round),
    Case("RAM(4 levels)", lambda: RAM(process=_process()), _matching, after_a_round),
)
