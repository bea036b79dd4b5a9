"""Segments that are drawn by the size of their gradients: without bias, with less variance, the same after a resume."""

import copy

import pytest
import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators import HalfOrder, HalfOrderRLR, LookAhead, SegmentsByNorm, UniformSegments
from rlr.estimators.drawing import capped
from rlr.estimators.segments import Segment
from rlr.samplers import DDIM
from tests.estimators.problems import (
    Curved,
    deviation,
    estimate,
    exact_gradients,
    linear_chain,
    quadratic,
    rollout,
    wavy,
)

SEGMENTS = [Segment(t, t - 1) for t in range(6, 0, -1)]


def trained(uniform: float = 0.2, **squares: float) -> SegmentsByNorm:
    """Returns a drawing that knows the squared norms ``s0``, ``s1``, … of the segments that end in these states."""
    drawing = SegmentsByNorm(uniform)
    drawing.squares = {int(name[1:]): value for name, value in squares.items()}
    drawing.counts = dict.fromkeys(drawing.squares, 1)
    return drawing


# --- the probabilities -----------------------------------------------------------------------------------------------


def test_probabilities_are_shares_of_the_root_mean_squares_mixed_with_equal_ones() -> None:
    drawing = trained(0.3, s0=9.0, s1=1.0, s2=4.0, s3=1.0, s4=1.0, s5=0.0)
    p = drawing.probabilities(SEGMENTS, 1)
    shares = torch.tensor([0.0, 1.0, 1.0, 2.0, 1.0, 3.0], dtype=torch.float64) / 8
    torch.testing.assert_close(p, 0.7 * shares + 0.3 / 6, rtol=0, atol=1e-15)


def test_a_segment_that_is_not_known_counts_as_the_mean_of_the_others() -> None:
    p = trained(0.1, s0=9.0, s1=1.0).probabilities(SEGMENTS, 1)
    shares = torch.tensor([2.0, 2.0, 2.0, 2.0, 1.0, 3.0], dtype=torch.float64) / 12
    torch.testing.assert_close(p, 0.9 * shares + 0.1 / 6, rtol=0, atol=1e-15)
    for fresh in (SegmentsByNorm(), trained(s0=0.0)):
        assert fresh.probabilities(SEGMENTS, 1).tolist() == pytest.approx([1 / 6] * 6)


def test_capped_probabilities_keep_their_sum_and_the_ratios_of_the_others() -> None:
    p = torch.tensor([0.6, 0.25, 0.1, 0.05], dtype=torch.float64)
    torch.testing.assert_close(capped(p, 0.7), p)
    # the first is cut to 1/3, and then the second, whose share has grown to 5/12
    expected = torch.tensor([1 / 3, 1 / 3, 2 / 9, 1 / 9], dtype=torch.float64)
    torch.testing.assert_close(capped(p, 1 / 3), expected)
    torch.testing.assert_close(capped(p, 1 / 4), torch.full_like(p, 1 / 4))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_as_many_segments_are_drawn_as_asked_for_and_as_often_as_their_factors_say(count: int) -> None:
    drawing, draws = trained(0.2, s0=100.0, s1=9.0, s2=1.0), 1000
    generator = torch.Generator().manual_seed(0)
    p, seen = drawing.probabilities(SEGMENTS, count), torch.zeros(6, dtype=torch.float64)
    for _ in range(draws):
        drawn = drawing.draw(SEGMENTS, count, generator)
        assert len(drawn) == count
        for i, segment in enumerate(SEGMENTS):
            if segment in drawn:
                assert drawn[segment] == pytest.approx(1 / (count * p[i].item()))
                seen[i] += 1
    chance = count * p
    error = (chance * (1 - chance) / draws).clamp_min(1e-12).sqrt()
    assert ((seen / draws - chance).abs() / error).max() < 4


# --- the estimate ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", [None, LookAhead()], ids=["ratio", "look-ahead"])
def test_the_mean_is_the_gradient(control: LookAhead | None) -> None:
    chain = linear_chain()
    estimator = HalfOrder(1, 2, control=control, drawing=SegmentsByNorm(0.1))
    assert deviation(estimator, chain, quadratic, exact_gradients(chain).sum(0)) < 4
    p = estimator.drawing.probabilities(SEGMENTS, 2)  # type: ignore[attr-defined]
    assert p.max() > 2 * p.min()


class Unweighted(SegmentsByNorm):
    """Sabotage: the factors are those of equal probabilities."""

    def draw(self, segments, count, generator):  # type: ignore[no-untyped-def]
        return dict.fromkeys(super().draw(segments, count, generator), len(segments) / count)


def test_missing_importance_weights_are_detected() -> None:
    chain = linear_chain()
    estimator = HalfOrder(1, 2, drawing=Unweighted(0.1))
    assert deviation(estimator, chain, quadratic, exact_gradients(chain).sum(0), 100, 2048) > 10


def variance(estimator: HalfOrder, chain: Chain) -> float:
    draws = torch.stack([estimate(estimator, chain, quadratic, 16, seed) for seed in range(240)])
    return draws[40:].var(0).sum().item()


def test_the_variance_is_smaller_where_few_segments_have_most_of_the_gradient() -> None:
    # the last steps have little noise, so that their likelihood ratios are the largest
    chain = linear_chain()
    uniform, by_norm = HalfOrder(1, 2), HalfOrder(1, 2, drawing=SegmentsByNorm(0.1))
    assert variance(by_norm, chain) < 0.6 * variance(uniform, chain)


def test_the_norms_are_those_of_the_terms_without_their_factors() -> None:
    chain = Chain(Curved(), DDIM(6, eta=1.0))
    estimator = HalfOrder(2, 2, drawing=SegmentsByNorm())
    sampled = rollout(estimator, chain, wavy, 8)
    drawn = estimator.draw(sampled)
    estimate(estimator, chain, wavy, 8, 0)
    assert list(drawn.values()) == [1.5, 1.5]
    for segment in drawn:
        (term,) = estimator._terms([segment], sampled, 1.0, None)
        parts = torch.autograd.grad(term.loss, list(chain.model.trainable.values()))
        square = sum(g.square().sum().item() for g in parts)
        assert estimator.drawing.squares[segment.stop] == pytest.approx(square, rel=1e-5)  # type: ignore[attr-defined]


def test_the_two_halves_of_a_term_count_together_and_hooks_are_gone() -> None:
    chain = Chain(Curved(), DDIM(6, eta=1.0))
    estimator = HalfOrder(1, 2, control=LookAhead(separate=True), drawing=SegmentsByNorm())
    for term in estimator.terms(rollout(estimator, chain, wavy, 8)):
        term.backward()
    assert set(estimator.drawing.counts.values()) == {1}  # type: ignore[attr-defined]
    assert not any(w._backward_hooks for w in chain.model.trainable.values())


def test_the_norm_is_that_of_the_mean_over_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two ranks with the gradients g and -3 g."""

    def one_update() -> dict[int, float]:
        estimator = HalfOrder(2, 2, drawing=SegmentsByNorm())
        estimate(estimator, Chain(Curved(), DDIM(6, eta=1.0)), wavy, 8, 0)
        return estimator.drawing.squares  # type: ignore[attr-defined]

    alone = one_update()
    monkeypatch.setattr("rlr.estimators.drawing.mean", lambda x: (x - 3 * x) / 2)
    assert one_update() == pytest.approx(alone)
    monkeypatch.setattr("rlr.estimators.drawing.mean", lambda x: x - x)
    assert set(one_update().values()) == {0.0}


def test_gradients_that_are_not_finite_are_left_out() -> None:
    def broken(x: Tensor) -> Tensor:
        return wavy(x) * torch.inf

    estimator = HalfOrder(2, 2, drawing=SegmentsByNorm())
    estimate(estimator, Chain(Curved(), DDIM(6, eta=1.0)), broken, 8, 0)
    assert estimator.drawing.squares == {}  # type: ignore[attr-defined]


# --- the state -------------------------------------------------------------------------------------------------------


def test_a_resumed_estimator_draws_the_same_to_the_bit() -> None:
    chain = Chain(Curved(), DDIM(6, eta=1.0))

    def fresh() -> HalfOrderRLR:
        return HalfOrderRLR(1, 2, drawing=SegmentsByNorm(0.1))

    whole = fresh()
    first = [estimate(whole, chain, wavy, 8, seed) for seed in range(5)]
    assert all(g.isfinite().all() for g in first)
    state = copy.deepcopy(whole.state_dict())
    expected = [estimate(whole, chain, wavy, 8, seed) for seed in range(5, 15)]
    resumed, restarted = fresh(), fresh()
    resumed.load_state_dict(state)
    assert all(torch.equal(estimate(resumed, chain, wavy, 8, 5 + k), g) for k, g in enumerate(expected))
    assert not all(torch.equal(estimate(restarted, chain, wavy, 8, 5 + k), g) for k, g in enumerate(expected))


def test_equal_probabilities_keep_no_state() -> None:
    assert set(HalfOrder(1, 2, drawing=UniformSegments()).state_dict()) == {"baseline"}


def test_impossible_drawings_are_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match="set segments to the number to draw"):
        HalfOrder(1, drawing=SegmentsByNorm())
    for wrong in ({"uniform": 0.0}, {"uniform": 1.1}, {"decay": 1.0}):
        with pytest.raises(ValueError, match=r"expected uniform in \(0, 1\] and decay in \[0, 1\)"):
            SegmentsByNorm(**wrong)
