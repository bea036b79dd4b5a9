"""What an estimator is made of: found through its structure, whatever it is wrapped in."""

import pytest
from torch import nn

from rlr.analysis.candidates import candidates
from rlr.analysis.linear import exact_gradients, linear_chain, quadratic
from rlr.analysis.structure import alike, find_control, independent, unbiased
from rlr.cli.parser import build
from rlr.estimators import (
    RLR,
    AllSteps,
    Antithetic,
    ClipFeatures,
    Critic,
    Estimator,
    FirstOrder,
    GroupLeaveOneOut,
    HalfOrder,
    HalfOrderRLR,
    LeaveOneOut,
    LookAhead,
    SampleClip,
    StandIn,
    Sum,
    ZerothOrder,
)
from rlr.estimators.parts import parts
from rlr.estimators.pathwise import pathwise
from rlr.samplers import DDIM
from rlr.toy.rewards import TinyPickScore
from tests.config_cover import filled_in
from tests.estimators.problems import deviation
from tests.modules.toy import Level
from tests.test_project import ROOT

CONTROL = LookAhead()
WITH_CONTROL = {
    "half order": HalfOrder(2, control=CONTROL),
    "half-order RLR": HalfOrderRLR(2, control=CONTROL),
    "RLR": RLR(2, control=CONTROL),
    "a sum": Sum([FirstOrder(1), HalfOrderRLR(2, control=CONTROL)]),
    "antithetic": Antithetic(HalfOrder(2, baseline=LeaveOneOut(together=2), control=CONTROL)),
    "a sum of sums, antithetic": Antithetic(Sum([FirstOrder(1), HalfOrderRLR(1, control=CONTROL)])),
}


@pytest.mark.parametrize("estimator", WITH_CONTROL.values(), ids=WITH_CONTROL)
def test_the_control_variate_is_found_in_whatever_has_one(estimator: Estimator) -> None:
    assert find_control(estimator) is CONTROL


@pytest.mark.parametrize("estimator", [FirstOrder(2), HalfOrder(2), RLR(half=False), Antithetic(FirstOrder(1))])
def test_an_estimator_may_have_no_control_variate(estimator: Estimator) -> None:
    assert find_control(estimator) is None


def test_parts_that_contain_each_other_are_found_once_and_modules_are_not_entered() -> None:
    reward = Level()
    value = StandIn(reward)
    value.itself = value  # type: ignore[attr-defined]
    found = list(parts(value))
    assert found[0] is value
    assert sum(part is value for part in found) == 1
    assert [part for part in found if isinstance(part, nn.Module)] == [reward]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (FirstOrder(1), FirstOrder(2)),
        (FirstOrder(1), HalfOrder(1)),
        (HalfOrder(1), HalfOrder(1, baseline=GroupLeaveOneOut(4))),
        (HalfOrder(1), HalfOrder(1, control=LookAhead())),
        (HalfOrder(1, control=LookAhead()), HalfOrder(1, control=LookAhead(ratio_weight=0.0))),
        (
            HalfOrder(1, control=LookAhead(value=StandIn(Level()))),
            HalfOrder(1, control=LookAhead(value=StandIn(Level()))),
        ),
        (HalfOrderRLR(2, step_range=(6, 3)), HalfOrderRLR(2, step_range=(6, 2))),
        (Sum([FirstOrder(1), FirstOrder(2)]), Sum([FirstOrder(1), FirstOrder(2)], [1.0, 2.0])),
    ],
)
def test_estimators_are_alike_where_classes_and_settings_are(one: Estimator, other: Estimator) -> None:
    assert alike(one, one, 10)
    assert not alike(one, other, 10)
    assert not alike(other, one, 10)


def test_estimators_made_twice_are_alike() -> None:
    for differentiable in (True, False):
        one, other = candidates(10, differentiable, 4), candidates(10, differentiable, 4)
        assert all(alike(one[name], other[name], 10) for name in one)
        names = list(one)
        assert not any(alike(one[a], one[b], 10) for a in names for b in names if a != b)


def test_look_aheads_are_alike_where_their_predictions_have_the_same_steps() -> None:
    stride, number = (HalfOrder(1, control=LookAhead(**way)) for way in ({"stride": 4}, {"prediction_steps": 3}))
    assert alike(stride, number, 10)
    assert not alike(stride, number, 20)


@pytest.mark.parametrize("config", ["parts/look_ahead", "tiny_look_ahead_stand_in"])
def test_the_pathwise_candidate_is_the_estimator_of_the_shipped_configs(config: str) -> None:
    found = filled_in(ROOT / f"configs/image/{config}.yaml")
    shipped = build(found["model"]["init_args"]["estimator"] if "model" in found else found, Estimator, config)
    control = find_control(shipped)
    assert control is not None
    value = None if control.differentiable else control.value
    assert alike(pathwise(value), shipped, 10)
    assert not alike(HalfOrderRLR(2, None, steps=2, control=LookAhead()), shipped, 10)


def test_an_independent_value_learns_by_itself_and_shares_networks() -> None:
    model = TinyPickScore()
    for value in (StandIn(model), Critic(ClipFeatures(model))):
        copy = independent(value)
        copy.seen.append(None)  # type: ignore[attr-defined]
        assert len(value.seen) == 0
        assert any(part is model for part in parts(copy))
    copy = independent(critic := Critic(ClipFeatures(model)))
    assert isinstance(copy, Critic)
    # the optimizer of the copy moves the weights of the copy
    assert copy.optimizer.param_groups[0]["params"][0] is next(iter(copy.head.parameters()))
    assert next(iter(copy.head.parameters())) is not next(iter(critic.head.parameters()))


EXACT = {
    "backpropagation": FirstOrder(AllSteps()),
    "half order": HalfOrder(2),
    "groups": HalfOrder(2, baseline=GroupLeaveOneOut(4)),
    "antithetic": Antithetic(HalfOrder(2, baseline=LeaveOneOut(together=2))),
    "look-ahead": HalfOrderRLR(2, None, control=LookAhead()),
    "several steps of first order": HalfOrderRLR(1, 2, steps=2),
}
INEXACT = {
    "truncated": FirstOrder(2),
    "clipped": FirstOrder(AllSteps(), clip=SampleClip()),
    "pathwise": pathwise(),
    "a small ratio": HalfOrder(2, control=LookAhead(ratio_weight=0.1)),
    "weighted": HalfOrderRLR(2, None, half_weight=0.5),
    "a range": HalfOrder(2, step_range=(5, 3)),
    "skipped": HalfOrder(2, skip_last=1),
    "antithetic": Antithetic(FirstOrder(2)),
    "first order by a stand-in": HalfOrderRLR(2, None, control=LookAhead(value=StandIn(Level()))),
    "smoothed": ZerothOrder(),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_is_called_unbiased_is(name: str) -> None:
    chain = linear_chain(6)
    assert unbiased(EXACT[name], chain)
    assert deviation(EXACT[name], chain, quadratic, exact_gradients(chain).sum(0), 60, 64) < 4


@pytest.mark.parametrize("name", INEXACT)
def test_what_may_be_biased_is_not_called_unbiased(name: str) -> None:
    assert not unbiased(INEXACT[name], linear_chain(6))


@pytest.mark.parametrize("name", ["truncated", "pathwise", "a range", "skipped", "weighted"])
def test_what_is_not_called_unbiased_is_not(name: str) -> None:
    chain = linear_chain(6)
    assert deviation(INEXACT[name], chain, quadratic, exact_gradients(chain).sum(0), 60, 64) > 4


def test_half_order_rlr_is_not_unbiased_where_steps_have_no_noise() -> None:
    assert not unbiased(HalfOrderRLR(1, None), linear_chain(6, DDIM(6, eta=0.0)))
