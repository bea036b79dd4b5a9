"""Estimators on chains only some of whose steps have noise: likelihood ratios cover these, and claim no others."""

import pytest
import torch

from rlr.chain import Chain
from rlr.estimators import (
    DDPO,
    RLR,
    Estimator,
    FirstOrder,
    HalfOrder,
    HalfOrderRLR,
    LookAhead,
    OfficialRLR,
    ScoreFunction,
    SegmentsByNorm,
    Unscaled,
    Zero,
    ZerothOrder,
)
from rlr.estimators.segments import Segment, noisy_runs
from rlr.samplers import CPS, DDIM, AllButLast, FixedWindow, FlowSDE, SlidingWindow, Windowed
from rlr.schedules import Grid
from tests.estimators.problems import (
    deviation,
    estimate,
    exact_gradients,
    flow_chain,
    linear_chain,
    quadratic,
    rollout,
)
from tests.estimators.test_exactness import SMALL, effort

STEPS = 6
WHOLE = [1, 2, 3, 4, 5, 6]


def windowed(first: int = 5, last: int = 3) -> Chain:
    return linear_chain(sampler=Windowed(DDIM(STEPS, 0.8), FixedWindow(first, last)))


class Gaps(DDIM):
    """Noise in steps 6, 5, 3 and 2."""

    def std(self, t: int, grid: Grid) -> float:
        return 0.0 if t in (1, 4) else super().std(t, grid)


CLAIMS: dict[str, tuple[Estimator, Chain, list[int]]] = {
    "half order (REINFORCE)": (HalfOrder(1), windowed(), [3, 4, 5]),
    "half order, h = 2, an uneven window": (HalfOrder(2), windowed(), [3, 4, 5]),
    "half order, one segment of two": (HalfOrder(2, segments=1), windowed(), [3, 4, 5]),
    "half order, segments by norm": (HalfOrder(1, segments=2, drawing=SegmentsByNorm()), windowed(), [3, 4, 5]),
    "half order in a part of the window": (HalfOrder(1, step_range=(6, 4)), windowed(), [4, 5]),
    "half order, look-ahead": (HalfOrder(2, control=LookAhead()), windowed(), [3, 4, 5]),
    "half order, look-ahead, increments": (HalfOrder(1, control=LookAhead(increments=True)), windowed(), [3, 4, 5]),
    "half order, look-ahead, gaps": (
        HalfOrder(2, control=LookAhead(increments=True)),
        linear_chain(sampler=Gaps(STEPS)),
        [2, 3, 5, 6],
    ),
    "half order, gaps": (HalfOrder(3), linear_chain(sampler=Gaps(STEPS)), [2, 3, 5, 6]),
    "half order, a window that moved": (
        HalfOrder(1),
        linear_chain(sampler=Windowed(DDIM(STEPS, 0.8), SlidingWindow(2, rounds=1))).in_round(2, 0),
        [3, 4],
    ),
    "half order, CPS on a flow": (HalfOrder(1), flow_chain(CPS(STEPS, 0.6)), [2, 3, 4, 5, 6]),
    "half-order RLR, CPS on a flow": (HalfOrderRLR(2, None), flow_chain(CPS(STEPS, 0.6)), WHOLE),
    "half-order RLR, a few-step chain": (
        HalfOrderRLR(1, None),
        flow_chain(Windowed(FlowSDE(4, 0.7), AllButLast())),
        [1, 2, 3, 4],
    ),
    "half-order RLR, first order behind the window": (HalfOrderRLR(1, None, steps=2), windowed(), [1, 2, 3, 4, 5]),
    "half-order RLR, all segments, look-ahead": (
        HalfOrderRLR(2, None, steps=2, control=LookAhead()),
        windowed(6, 3),
        WHOLE,
    ),
    "RLR covers the rest by zeroth order": (RLR(2, zeroth=ZerothOrder(scale=SMALL)), windowed(), WHOLE),
    "RLR, gaps": (RLR(2, zeroth=ZerothOrder(scale=SMALL)), linear_chain(sampler=Gaps(STEPS)), WHOLE),
    "first order needs no noise": (FirstOrder(3), windowed(), [1, 2, 3]),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_the_mean_is_the_gradient_of_the_claimed_steps(name: str) -> None:
    estimator, chain, steps = CLAIMS[name]
    estimator.check(chain)
    exact = exact_gradients(chain)[[t - 1 for t in steps]].sum(0)
    assert deviation(estimator, chain, quadratic, exact, *effort(estimator)) < 4


@pytest.mark.parametrize("name", ["half order (REINFORCE)", "half order, look-ahead", "half order, gaps"])
def test_steps_without_noise_are_missing_from_the_whole(name: str) -> None:
    estimator, chain, _ = CLAIMS[name]
    assert deviation(estimator, chain, quadratic, exact_gradients(chain).sum(0), 50, 2048) > 10


def ddpo(**settings: object) -> DDPO:
    plain = {"surrogate": ScoreFunction(), "statistics": Unscaled(Zero()), "advantage_clip": None}
    return DDPO(1, mean_over_steps=False, **{**plain, **settings})


def test_ddpo_trains_on_the_steps_with_noise() -> None:
    """The sum over steps is REINFORCE's over the dimension, in the window as in the whole chain."""
    chain = windowed()
    ddpo().check(chain)
    found = estimate(ddpo(), chain, quadratic, 8, 3)
    torch.testing.assert_close(found, estimate(HalfOrder(1, baseline=Zero()), chain, quadratic, 8, 3) / 2)
    some = [term.steps[0] for term in ddpo(timestep_fraction=0.4).terms(rollout(ddpo(), chain, quadratic, 30))]
    assert some == [5, 4, 3]


def test_official_rlr_has_no_term_of_a_step_without_noise() -> None:
    chain, estimator = windowed(), OfficialRLR(draws=60)
    estimator.check(chain)
    steps = [term.steps[0] for term in estimator.terms(rollout(estimator, chain, quadratic, 4))]
    assert set(steps) == {1, 3, 4, 5}


def test_runs_of_noise() -> None:
    chain = linear_chain(sampler=Gaps(STEPS))
    assert noisy_runs(chain, Segment(6, 0)) == [(6, 4), (3, 1)]
    assert noisy_runs(chain, Segment(5, 2)) == [(5, 4), (3, 2)]
    assert noisy_runs(chain, Segment(4, 3)) == []


def test_the_sub_chain_of_rlr_is_drawn_where_all_of_its_steps_have_noise() -> None:
    chain, estimator = linear_chain(sampler=Gaps(STEPS)), RLR(2)
    assert {estimator.segment(chain, seed) for seed in range(40)} == {(6, 4), (3, 1)}


@pytest.mark.parametrize(
    ("estimator", "chain", "message"),
    [
        (HalfOrder(1), linear_chain(sampler=DDIM(STEPS, 0.0)), "HalfOrder needs noise in step 6"),
        (HalfOrder(1, step_range=(2, 1)), windowed(), "HalfOrder needs noise in step 2"),
        (HalfOrderRLR(1, None, steps=5), windowed(), "HalfOrder needs noise in step 6"),
        (RLR(2), linear_chain(sampler=DDIM(STEPS, 0.0)), "RLR's half order needs noise in step 2"),
        (RLR(4), windowed(), "no sub-chain of length=4 has noise in all of its steps; set length lower"),
        (DDPO(), linear_chain(sampler=DDIM(STEPS, 0.0)), "DDPO needs noise in step 1"),
        (OfficialRLR(), windowed(1, 1), "OfficialRLR needs noise in step 2"),
    ],
)
def test_a_chain_without_noise_where_it_is_needed_is_refused(estimator: Estimator, chain: Chain, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimator.check(chain)
