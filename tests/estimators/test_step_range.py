"""Half order in a part of the chain only: it stays in there, and what it claims to estimate is known exactly."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from rlr.data.cleaning import ASSETS
from rlr.data.staged.stages import read_stages
from rlr.estimators import RLR, HalfOrder, HalfOrderRLR, LookAhead, ZerothOrder
from rlr.models import StagedPrompt
from rlr.samplers import DDIM
from rlr.toy.data import WorldStages
from tests.estimators.problems import deviation, linear_chain, quadratic, rollout, wavy
from tests.estimators.test_exactness import SMALL, STEPS, WHOLE, claimed, effort
from tests.estimators.test_terms import curved_chain

UNBIASED = {
    "half order": (HalfOrder(2, step_range=(5, 3)), [3, 4, 5]),
    "half order, one segment of two": (HalfOrder(1, segments=1, step_range=(5, 4)), [4, 5]),
    "half order, look-ahead": (HalfOrder(2, step_range=(STEPS, 4), control=LookAhead()), [4, 5, 6]),
    "half-order RLR": (HalfOrderRLR(2, step_range=(5, 3)), [1, 3, 4, 5]),
    "half-order RLR, two steps of first order": (HalfOrderRLR(1, None, 2, step_range=(4, 3)), [1, 2, 3, 4]),
    "RLR": (RLR(2, step_range=(5, 3), zeroth=ZerothOrder(scale=SMALL)), WHOLE),
    "RLR, one choice only": (RLR(2, step_range=(4, 3), zeroth=ZerothOrder(scale=SMALL)), WHOLE),
}


@pytest.mark.parametrize("name", UNBIASED)
def test_the_mean_is_the_gradient_of_the_steps_claimed(name):
    estimator, steps = UNBIASED[name]
    chain = linear_chain()
    estimator.check(chain)
    assert deviation(estimator, chain, quadratic, claimed(steps), *effort(estimator)) < 4


@pytest.mark.parametrize(
    "estimator",
    [HalfOrderRLR(2, None, step_range=(5, 3)), RLR(2, step_range=(5, 4), zeroth=False)],
    ids=["half-order RLR", "RLR without zeroth order"],
)
def test_what_is_left_out_is_missing_from_the_whole(estimator):
    assert deviation(estimator, linear_chain(), quadratic, claimed(WHOLE), count=100, batch=2048) > 10


def test_sub_chains_are_drawn_in_the_range_alone_and_cover_all_of_it():
    chain, estimator = curved_chain(12), RLR(3, step_range=(9, 4))
    drawn = Counter(estimator.segment(chain, seed) for seed in range(400))
    assert {segment.steps for segment in drawn} == {(9, 8, 7), (8, 7, 6), (7, 6, 5), (6, 5, 4)}
    # uniform: 100 of each, with a standard deviation of 8.7
    assert max(drawn.values()) - min(drawn.values()) < 60


def test_zeroth_order_covers_what_the_sub_chain_leaves():
    chain, estimator = curved_chain(8), RLR(2, steps=2, step_range=(6, 4))
    for seed in range(20):
        first, half, zeroth = estimator.terms(rollout(estimator, chain, wavy, seed=seed))
        assert set(half.steps) <= {6, 5, 4}
        assert sorted((*first.steps, *half.steps, *zeroth.steps)) == list(range(1, 9))


def test_without_a_range_all_steps_are_covered():
    chain = curved_chain(8)
    for seed in range(20):
        assert RLR(3).segment(chain, seed) == RLR(3, step_range=(8, 2)).segment(chain, seed)
    assert HalfOrder(2).partition(chain) == HalfOrder(2, step_range=(8, 1)).partition(chain)


REFUSED = {
    "beyond the chain": (
        lambda: RLR(2, step_range=(9, 4)).check(curved_chain(8)),
        r"RLR.step_range: expected .* of steps 8 … 2, got \[9, 4\]",
    ),
    "into first order": (lambda: RLR(2, step_range=(5, 1)).check(curved_chain(8)), r"of steps 8 … 2, got \[5, 1\]"),
    "upside down": (lambda: HalfOrder(1, step_range=(3, 5)).check(curved_chain(8)), "set the larger number first"),
    "first order's": (lambda: HalfOrderRLR(1, None, 3, step_range=(5, 3)).check(curved_chain(8)), "of steps 8 … 4"),
    "too short": (
        lambda: RLR(3, step_range=(5, 4)).check(curved_chain(8)),
        r"length=3 does not fit into step_range=\[5, 4\] of 2 steps",
    ),
    "of nothing": (lambda: RLR(half=False, step_range=(5, 4)), "half is false"),
    "no noise": (lambda: RLR(2, step_range=(5, 4)).check(curved_chain(8, eta=0.0)), "needs noise in step 4"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_impossible_range_is_refused(case):
    action, stated = REFUSED[case]
    with pytest.raises(ValueError, match=stated):
        action()


# ---------------------------------------------------------------- the ranges that are shipped

IMAGES = Path(__file__).parents[2] / "configs" / "image"


def arguments(value, key):
    """Returns an argument of a config's object, which may be a part of its own; None if it is not given."""
    if isinstance(value, str) and value.endswith(".yaml"):
        value = yaml.safe_load((IMAGES / value).read_text(encoding="utf-8"))
    return value.get("init_args", {}).get(key) if isinstance(value, dict) else None


@pytest.mark.parametrize("path", sorted(IMAGES.glob("*_dcot*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_range_is_the_middle_of_three_stages(path):
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    steps = arguments(config["model"], "sampler")
    steps = arguments(steps, "steps") or DDIM().steps
    first, last = arguments(arguments(config["model"], "estimator"), "step_range")
    prompt = StagedPrompt("x", ("coarse", "mid", "fine"), arguments(config["data"], "starts"))
    middle = [t for t in range(steps, 0, -1) if prompt.stage(t, steps) == 1]
    assert list(range(first, last - 1, -1)) == middle
    assert steps in (10, 50)


def test_all_stages_that_are_shipped_are_three():
    hands = read_stages(ASSETS / "hands.jsonl").values()
    assert {len(written.stages) for written in hands} == {3}
    assert len(WorldStages().write(["a red circle on a white background"])[0]) == 3
