"""The comparison of estimators: on a chain with a known gradient it reports what follows from the closed form."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch

from rlr.analysis.accuracy import Sample, deep
from rlr.analysis.candidates import backpropagation, candidates, likelihood_ratios, look_ahead, yardstick
from rlr.analysis.linear import exact_gradients, linear_chain, quadratic
from rlr.analysis.measure import Cost
from rlr.analysis.problem import Batch, Problem
from rlr.analysis.structure import find_control
from rlr.analysis.survey import LEAST, REFERENCE, Draws, Row, Survey, survey
from rlr.estimators import AllSteps, Estimator, FirstOrder, HalfOrderRLR, LookAhead, StandIn, Term
from rlr.rollout import Rollout, unconditional
from rlr.samplers import DDIM
from tests.modules.toy import Level

STEPS, BATCH, ROUNDS = 6, 8, 120


def linear() -> Problem:
    return Problem(linear_chain(STEPS), unconditional(quadratic), ["x"] * BATCH)


class WithoutStepOne(Estimator):
    """A sabotaged half-order RLR: the term that covers the last step is left out."""

    def __init__(self) -> None:
        self.whole = HalfOrderRLR(1, None)

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        yield from (term for term in self.whole.terms(rollout) if term.steps != (1,))


class OtherReward(Estimator):
    """A sabotaged full backpropagation: it follows another reward."""

    differentiable = True

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        steps = rollout.chain.steps
        x = rollout.replay_sample(steps)
        yield Term("first_order", -(x[:, 0] + 2 * x[:, 1]).mean(), tuple(range(steps, 0, -1)))


class Tripled(HalfOrderRLR):
    """Half-order RLR with another scale."""

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        yield from (term.scaled(3) for term in super().terms(rollout))


class Multiplied(FirstOrder):
    """Full backpropagation, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__(AllSteps(), weight=factor)


@pytest.fixture(scope="module")
def compared() -> Survey:
    estimators = {
        "FirstOrder(1)": FirstOrder(1),
        "HalfOrderRLR": HalfOrderRLR(2, None),
        "tripled": Tripled(2, None),
        "sabotaged": WithoutStepOne(),
        "other reward": OtherReward(),
    }
    return survey(linear(), estimators, backpropagation(STEPS), ROUNDS)


@pytest.fixture(scope="module")
def exact() -> torch.Tensor:
    return exact_gradients(linear_chain(STEPS))


def row(found: Survey, name: str) -> Row:
    return next(row for row in found.rows if row.name == name)


def test_the_reference_and_its_late_part_are_compared_too(compared: Survey) -> None:
    names = [row.name for row in compared.rows]
    assert names == [
        "FirstOrder(all)",
        "FirstOrder(3)",
        "FirstOrder(1)",
        "HalfOrderRLR",
        "tripled",
        "sabotaged",
        "other reward",
    ]
    assert (compared.rounds, compared.reference_draws, compared.normalized) == (ROUNDS, REFERENCE * ROUNDS, False)
    full = row(compared, "FirstOrder(all)").accuracy
    assert full is not None
    assert (full.bias, full.most) == (0, 0)
    assert full.share == pytest.approx(1)


@pytest.mark.parametrize(("name", "steps"), [("FirstOrder(1)", 1), ("FirstOrder(3)", 3)])
def test_truncation_has_the_share_and_the_bias_of_the_closed_form(
    name: str, steps: int, compared: Survey, exact: torch.Tensor
) -> None:
    g, part = exact.sum(0), exact[:steps].sum(0)
    found = row(compared, name).accuracy
    assert found is not None
    share = (part @ g / g.square().sum()).item()
    assert found.share == pytest.approx(share, abs=4 * (found.share_error + share * compared.error))
    squared = ((part - g).square().sum() / g.square().sum()).item()
    error = (found.most**2 - found.bias**2) / 2
    assert found.bias**2 == pytest.approx(squared, abs=4 * (error + squared * compared.error))


def test_the_deep_cosine_is_that_with_the_early_steps(compared: Survey, exact: torch.Tensor) -> None:
    early = exact[deep(STEPS) :].sum(0)
    problem = linear()
    draws = torch.stack([problem.gradient(FirstOrder(1), 1 + REFERENCE * k) for k in range(ROUNDS)])
    expected = (draws @ early / (draws.norm(dim=1) * early.norm())).mean().item()
    found = row(compared, "FirstOrder(1)").accuracy
    assert found is not None
    assert found.deep_cosine == pytest.approx(expected, abs=0.05)


def test_an_unbiased_estimator_is_not_reported_as_biased_and_a_sabotaged_one_is(compared: Survey) -> None:
    for name in ("HalfOrderRLR", "tripled"):
        found = row(compared, name).direction
        assert found is not None
        assert found.bias == 0
    sabotaged = row(compared, "sabotaged").accuracy
    assert sabotaged is not None
    assert sabotaged.least > 0
    assert abs(sabotaged.share - 1) > 4 * sabotaged.share_error
    other = row(compared, "other reward").direction
    assert other is None or other.bias > 5 * other.resolution  # two standard errors each


def test_a_scale_is_a_bias_but_none_of_the_direction(compared: Survey) -> None:
    once, thrice = row(compared, "HalfOrderRLR"), row(compared, "tripled")
    assert once.accuracy is not None
    assert thrice.accuracy is not None
    assert thrice.accuracy.share == pytest.approx(3 * once.accuracy.share)
    assert thrice.accuracy.least > 0.5
    assert thrice.direction is not None
    assert once.direction is not None
    assert thrice.direction.variance == pytest.approx(once.direction.variance, rel=0.5)


@dataclass(frozen=True)
class Heavy(Problem):
    """A problem whose rewards are multiplied, batch by batch, by a factor with heavy tails and the given sign."""

    alternate: bool = False

    def batch(self, number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        factor = torch.randn((), generator=generator).div(torch.randn((), generator=generator)).abs() ** 2
        sign = (-1) ** number if self.alternate else 1
        return replace(super().batch(number), objective=unconditional(lambda x: sign * factor * quadratic(x)))


def heavy(alternate: bool = False) -> Survey:
    problem = Heavy(linear_chain(STEPS), unconditional(quadratic), ["x"] * BATCH, alternate)
    return survey(problem, {"FirstOrder(1)": FirstOrder(1)}, backpropagation(STEPS), 12)


def test_draws_with_heavy_tails_are_compared_by_direction() -> None:
    found = heavy()
    assert found.normalized
    assert found.known
    assert row(found, "FirstOrder(all)").tail > 50
    own = row(found, "FirstOrder(all)").direction
    assert own is not None
    assert (own.bias, own.resolution) == (0, 0)
    plain = survey(linear(), {"FirstOrder(1)": FirstOrder(1)}, backpropagation(STEPS), 12)
    for name in ("FirstOrder(all)", "FirstOrder(1)"):
        one, other = row(found, name).accuracy, row(plain, name).accuracy
        assert one is not None
        assert other is not None
        # a factor on a batch changes no direction
        assert one.cosine == pytest.approx(other.cosine, abs=0.02)


def test_nothing_is_said_of_accuracy_where_the_draws_determine_no_gradient() -> None:
    found = heavy(alternate=True)
    assert not found.known
    assert [row.accuracy for row in found.rows] == [None] * 3
    assert found.choices == []
    assert all(row.cost.peak_bytes > 0 for row in found.rows)
    assert all(row.spread.variance > row.spread.error > 0 for row in found.rows)


def test_the_variance_of_draws_is_known_where_their_mean_is_not() -> None:
    draws = Draws(
        torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 3.0]), Cost(1, 1)
    )
    # the trace of the covariance, and the error of a mean of squares of normal numbers
    assert draws.spread.variance == pytest.approx(14, abs=4 * draws.spread.error)
    assert draws.spread.error == pytest.approx((2 * (1 + 16 + 81) / 4000) ** 0.5, rel=0.1)


def test_what_is_unbiased_by_construction_is_named(compared: Survey) -> None:
    assert compared.unbiased == ["FirstOrder(all)", "HalfOrderRLR"]


def test_what_does_not_fit_is_left_out_or_refused() -> None:
    estimators: dict[str, Estimator] = {"long": FirstOrder(STEPS + 1), "one": FirstOrder(1)}
    found = survey(linear(), estimators, backpropagation(STEPS), 4, optional=estimators)
    assert "longer than the chain" in found.failures["long"]
    assert [row.name for row in found.rows] == ["FirstOrder(all)", "FirstOrder(3)", "one"]
    with pytest.raises(ValueError, match="longer than the chain"):
        survey(linear(), estimators, backpropagation(STEPS), 4)
    with pytest.raises(ValueError, match="draws: expected at least 4, got 3"):
        survey(linear(), {}, backpropagation(STEPS), 3)


def test_an_optional_estimator_that_needs_much_more_time_is_drawn_in_the_first_rounds_alone() -> None:
    estimators = {"noisy": Multiplied(1000.0), "same": Multiplied(1.0), "asked for": Multiplied(1000.0)}
    found = survey(linear(), estimators, backpropagation(STEPS), 8, optional=("noisy", "same"))
    assert {name: row(found, name).draws for name in estimators} == {"noisy": LEAST, "same": 8, "asked for": 8}
    assert row(found, "FirstOrder(all)").draws == 8 * REFERENCE
    # what was drawn is compared with the draws of the reference on the same batches
    problem, full = linear(), FirstOrder(AllSteps())
    whole = Sample(problem.gradients(full, range(1, 1 + 8 * REFERENCE)))
    for name, count in (("noisy", LEAST), ("asked for", 8)):
        same = Sample(problem.gradients(full, range(1, 1 + count * REFERENCE, REFERENCE)))
        accuracy = row(found, name).accuracy
        assert accuracy is not None
        assert accuracy.bias == pytest.approx(999 * (same.square / whole.square).sqrt().item())


def test_rounds_end_with_the_time_but_not_before_the_fourth() -> None:
    assert survey(linear(), {}, backpropagation(STEPS), 50, seconds=0).rounds == 4


@pytest.mark.parametrize("make", [backpropagation, look_ahead, likelihood_ratios])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_parts_of_a_reference_differ_by_the_early_steps(make, steps: int) -> None:
    reference, problem = make(steps), Problem(linear_chain(steps), unconditional(quadratic), ["x"] * BATCH)
    exact = exact_gradients(problem.chain)
    assert (reference.late is None) == (steps == 1)
    full = problem.gradients(reference.full, range(200))
    early = full - problem.gradients(reference.late, range(200)) if reference.late else full
    for draws, expected in ((full, exact.sum(0)), (early, exact[deep(steps) :].sum(0))):
        error = draws.std(0) / 200**0.5
        assert ((draws.mean(0) - expected) / error).abs().max() < 4


def test_the_reference_is_the_one_that_can_be_computed() -> None:
    chain = linear_chain(STEPS)
    assert yardstick(chain, True).name == "FirstOrder(all)"
    assert yardstick(chain, True, affordable=False).name == "HalfOrderRLR(1, all, LookAhead)"
    assert yardstick(chain, False).name == "HalfOrder(1)"
    with pytest.raises(ValueError, match="needs noise in step"):
        yardstick(linear_chain(STEPS, DDIM(STEPS, eta=0.0)), False)


@pytest.mark.parametrize("differentiable", [True, False])
@pytest.mark.parametrize("steps", [2, 5, 20])
def test_the_candidates_fit_and_need_no_more_than_the_reward_has(steps: int, differentiable: bool) -> None:
    chain = linear_chain(steps)
    found = candidates(steps, differentiable, 4, LookAhead(value=StandIn(Level())))
    if steps > 2:
        for estimator in found.values():
            estimator.check(chain)
    assert any(not estimator.differentiable for estimator in found.values())
    assert differentiable or not any(estimator.differentiable for estimator in found.values())


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_groups_and_pairs_are_candidates_where_prompts_have_enough_samples(samples: int) -> None:
    found = candidates(6, False, samples)
    assert ("HalfOrder(2, groups)" in found) == (samples > 1)
    assert ("HalfOrder(2, antithetic)" in found) == (samples % 2 == 0)
    problem = Problem(linear_chain(6), unconditional(quadratic), ["x"] * 12)
    for estimator in found.values():
        estimator.check(problem.chain)
        assert problem.gradient(estimator, 0).isfinite().all()


def test_values_of_candidates_learn_by_themselves() -> None:
    value = StandIn(Level())
    estimators = candidates(6, False, 1, LookAhead(value=value)).values()
    values = [control.value for estimator in estimators if (control := find_control(estimator)) is not None]
    assert len({id(value), *map(id, values)}) == 3
    assert all(isinstance(v, StandIn) and v.reward is value.reward for v in values)
