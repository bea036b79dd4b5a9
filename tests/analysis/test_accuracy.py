import pytest
import torch

from experiments.cost.estimators import ENTRIES, Entry
from rlr.analysis.accuracy import Reference, Sample, accuracy, deep, draw_reference, squared_distance
from rlr.analysis.linear import exact_gradients, linear_chain, quadratic
from rlr.analysis.problem import Problem
from rlr.estimators import FirstOrder, HalfOrderRLR
from rlr.rollout import unconditional

G = torch.tensor([3.0, 4.0], dtype=torch.float64)
DEEP = torch.tensor([0.0, 2.0], dtype=torch.float64)
BATCH = 8


def linear(steps: int = 6) -> Problem:
    return Problem(linear_chain(steps), unconditional(quadratic), ["x"] * BATCH)


def exact(problem: Problem) -> Reference:
    each = exact_gradients(problem.chain)
    return Reference.exact(each.sum(0), each[deep(problem.chain.steps) :].sum(0))


def test_an_exact_estimate_with_noise_has_the_known_numbers() -> None:
    noise = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]], dtype=torch.float64)
    found = accuracy(G + noise, Reference.exact(G, DEEP))
    assert found.share == pytest.approx(1)
    assert found.bias == found.least == 0
    assert found.variance == pytest.approx((2 / 3 + 8 / 3) / 25)


def test_cosines_are_those_of_single_draws() -> None:
    draws = torch.tensor([[0.0, 1.0], [3.0, 0.0]], dtype=torch.float64)
    found = accuracy(draws, Reference.exact(G, DEEP))
    assert found.cosine == pytest.approx((0.8 + 0.6) / 2)
    assert found.deep_cosine == pytest.approx((1 + 0) / 2)


def test_a_bias_is_seen() -> None:
    g = torch.tensor([1.0, 0.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    draws = torch.tensor([0.5, 0.0]) + 0.1 * torch.randn(400, 2, generator=generator, dtype=torch.float64)
    found = accuracy(draws, Reference.exact(g, g))
    assert found.share == pytest.approx(0.5, abs=4 * found.share_error)
    assert found.least < 0.5 < found.most
    assert found.most - found.least < 0.04


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_the_error_of_the_squared_distance_is_its_scatter(bias: float, known: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    spread = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)

    def draw(count: int, mean: float, scale: float) -> Sample:
        return Sample(mean + scale * spread * torch.randn(count, 3, generator=generator, dtype=torch.float64))

    repeats = [squared_distance(draw(50, bias, 1), draw(80, 0, 0 if known else 1.5)) for _ in range(2000)]
    estimates, errors = (torch.stack(values) for values in zip(*repeats, strict=True))
    assert abs(estimates.mean() - 3 * bias**2) < 4 * estimates.std() / 2000**0.5
    # at bias 0 the first part of the formula is itself an estimate of nothing, and errs on the safe side
    assert estimates.std() * 0.9 < errors.mean() < estimates.std() * 1.6


def test_a_drawn_reference_agrees_with_the_exact_one() -> None:
    """Full backpropagation of the linear chain: the norms, and what they say of a truncated and of an unbiased estimator."""
    problem, seeds = linear(), range(300)
    drawn, known = Reference.drawn(*draw_reference(problem, range(1000, 1300))), exact(problem)
    assert known.error == 0
    assert drawn.full.square.item() == pytest.approx(known.full.square.item(), rel=4 * drawn.error)
    assert drawn.deep.square.item() == pytest.approx(known.deep.square.item(), rel=0.2)
    for estimator in (FirstOrder(1), HalfOrderRLR(2, None)):
        draws = problem.gradients(estimator, seeds)
        one, other = accuracy(draws, drawn), accuracy(draws, known)
        assert one.share == pytest.approx(other.share, abs=0.05)
        assert one.cosine == pytest.approx(other.cosine, abs=0.05)
        assert one.deep_cosine == pytest.approx(other.deep_cosine, abs=0.05)
        assert one.least <= other.most
        assert other.least <= one.most


def test_the_deep_part_is_that_of_the_early_steps() -> None:
    problem = linear(5)
    assert deep(5) == 2
    _, drawn = draw_reference(problem, range(400))
    mean, error = drawn.mean(0), drawn.std(0) / 20
    each = exact_gradients(problem.chain)
    assert ((mean - each[2:].sum(0)) / error).abs().max() < 4
    assert ((mean - each[1:].sum(0)) / error).abs().max() > 10


def test_a_reference_that_is_nothing_but_noise_is_refused() -> None:
    noise = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="do not tell the gradient from zero; take more"):
        Reference.drawn(noise - noise.mean(0), noise)


UNBIASED = (
    "FirstOrder(all)",
    "HalfOrder(",
    "DDPO, first gradient",
    "ZerothOrder",
    "RLR(h), to the letter",
    "RLR without half order",
    "HalfOrderRLR(h), one",
    "HalfOrderRLR(h), all",
    "HalfOrderRLR(1)",
)
"""How the names of those begin that are said to be unbiased."""


def said_to_be_unbiased(entry: Entry) -> bool:
    return entry.name.startswith(UNBIASED) or entry.name == "RLR(h)"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_in_the_units_of_the_gradient_unbiased_estimators_have_a_share_of_one(entry: Entry) -> None:
    problem = linear(10)
    entry.make(10).check(problem.chain)
    draws = torch.stack([problem.gradient(entry.make(10), seed) for seed in range(60)])
    found = accuracy(entry.scale(problem) * draws, exact(problem))
    if said_to_be_unbiased(entry):
        assert found.share == pytest.approx(1, abs=4.5 * found.share_error)
    assert found.variance > 0


def test_each_estimate_is_made_with_a_new_estimator() -> None:
    for entry in ENTRIES:
        assert entry.make(10) is not entry.make(10)
