"""Which estimator for a budget: the lowest error, for every number of seconds and bytes."""

import itertools

import numpy as np
import pytest

from rlr.analysis.direction import Direction
from rlr.analysis.recommendation import (
    Choice,
    Measured,
    Spread,
    advice,
    advice_without_reference,
    best,
    by_memory,
    by_seconds,
    near,
    times,
)

MIB = 2**20


def choice(name: str, bias: float, variance: float, seconds: float = 1.0, size: int = 10) -> Choice:
    return Choice(name, Direction(bias, 0.1, variance), seconds, size * MIB)


TRUNCATED = choice("truncated", 3.0, 0.5, 1.0, 20)
MIXED = choice("mixed", 0.2, 4.0, 2.0, 30)
FULL = choice("full", 0.0, 10.0, 4.0, 100)
NOISY = choice("noisy", 0.0, 1000.0, 1.0, 5)
ALL = (TRUNCATED, MIXED, FULL, NOISY)


def test_the_error_is_bias_and_variance_of_as_many_estimates_as_fit() -> None:
    assert MIXED.error(8.0) == pytest.approx(0.2 + 4.0 / 4)
    assert MIXED.cosine(8.0) == pytest.approx(2.2**-0.5)


@pytest.mark.parametrize("chosen", list(itertools.permutations(ALL)))
def test_the_ranges_hold_the_best_everywhere(chosen: tuple[Choice, ...]) -> None:
    ranges = by_seconds(chosen)
    assert [r.choice.name for r in ranges] == ["truncated", "mixed", "full"]
    assert ranges[0].low == 0
    assert ranges[-1].high == float("inf")
    assert all(one.high == other.low for one, other in itertools.pairwise(ranges))
    for seconds in np.geomspace(1e-3, 1e5, 60):
        (inside,) = (r.choice for r in ranges if r.low <= seconds < r.high)
        assert inside is best(chosen, seconds)


def test_random_choices_have_the_ranges_of_their_lowest_errors() -> None:
    generator = np.random.default_rng(0)
    for _ in range(100):
        drawn = [choice(str(k), *generator.exponential(1.0, 3)) for k in range(6)]
        for seconds in np.geomspace(1e-3, 1e4, 20):
            (inside,) = (r.choice for r in by_seconds(drawn) if r.low <= seconds < r.high)
            assert inside.error(seconds) == pytest.approx(min(c.error(seconds) for c in drawn))


def test_the_best_fits_into_the_memory() -> None:
    assert best(ALL, 1e6) is FULL
    assert best(ALL, 1e6, 50 * MIB) is NOISY
    assert best(ALL, 100.0, 50 * MIB) is MIXED
    assert best(ALL, 100.0, 1 * MIB) is None


def test_more_memory_never_has_a_larger_error() -> None:
    assert [c.name for c in by_memory(ALL, 1e6)] == ["noisy", "full"]
    assert [c.name for c in by_memory(ALL, 20.0)] == ["noisy", "truncated", "mixed"]


def test_near_are_those_whose_errors_are_not_distinguished() -> None:
    close = choice("close", 0.2, 4.5, 2.0)
    assert near([*ALL, close], MIXED, 20.0) == [close]
    # twice the error, known to 40 %, may be the same
    uncertain = Choice("uncertain", Direction(0.0, 0.1, 12.0, 0.4), 2.0, 10 * MIB)
    assert uncertain.error(20.0) == pytest.approx(2 * MIXED.error(20.0))
    assert near([*ALL, close, uncertain], MIXED, 20.0) == [close]
    surer = Choice("surer", Direction(0.0, 0.1, 12.0, 0.6), 2.0, 10 * MIB)
    assert near([*ALL, close, surer], MIXED, 20.0) == [close, surer]


def test_the_estimator_in_use_is_kept_where_no_other_is_better_beyond_the_noise() -> None:
    close = choice("close", 0.2, 4.5, 2.0)
    assert advice([*ALL, close], "close", 20.0)[1].endswith("they are no reason to change it.")
    assert advice([*ALL, close], "noisy", 20.0)[1].endswith("in the same time.")


def test_the_advice_names_what_the_numbers_say() -> None:
    first, own, seconds, memory, bias = advice(ALL, "noisy", 20.0)
    assert first.startswith(
        "With 20 s an update: mixed, 10 batches an update, whose cosine with the gradient is then 0.79"
    )
    assert own == "noisy has the cosine 0.14 in the same time."
    assert (
        seconds
        == "By the time of an update (larger batches): truncated up to 2.68 s, mixed from 2.68 s, full from 160 s."
    )
    assert memory.endswith("from 5 MiB noisy, from 20 MiB truncated, from 30 MiB mixed.")
    assert "however many samples an update has (the cosine that is left): truncated (0.50), mixed (0.91)." in bias
    assert "No bias of the direction was found in full (at least 0.95), noisy (at least 0.95)." in bias


def test_the_advice_is_for_the_budget() -> None:
    # without a time, that of the estimator in use
    assert advice(ALL, "full")[0].startswith("With 4 s an update: mixed, 2 batches")
    assert advice(ALL, "mixed", 20.0)[1] == "This is the estimator in use."
    assert "With 20 s an update and 25 MiB: truncated" in advice(ALL, "full", 20.0, 25 * MIB)[0]
    (nothing,) = advice(ALL, "full", 20.0, 1 * MIB)
    assert "No estimator fits into 1 MiB; the least is 5 MiB, for noisy." in nothing
    assert advice([MIXED], "none")[1].startswith("That holds for any time an update: mixed")


def measured(name: str, variance: float, seconds: float, unbiased: bool = True, error: float = 0.01) -> Measured:
    return Measured(name, Spread(variance, error * variance), seconds, unbiased)


def test_the_price_is_the_time_for_the_same_variance() -> None:
    one, other = measured("one", 4.0, 3.0, error=0.03), measured("other", 2.0, 2.0, error=0.04)
    # the mean of twelve estimates in 36 seconds has a third of the variance of one
    assert one.price / 36 == pytest.approx(4.0 / 12)
    ratio, error = one.ratio(other)
    assert ratio == pytest.approx(3.0)
    assert error == pytest.approx(3.0 * 0.05)


def test_without_a_reference_unbiased_estimators_are_compared_by_variance_and_time() -> None:
    known = [measured("reference", 10.0, 2.0), measured("half", 2.0, 3.0), measured("close", 3.0, 2.01)]
    first, rest = advice_without_reference([*known, measured("path", 0.1, 2.0, unbiased=False)], "path", "reference")
    assert first.startswith("Of the estimators that are unbiased by construction, use half: it needs the least time")
    assert "As good within the noise: close." in first
    assert "The others need more time for the same variance: reference 3.3 times." in first
    # the smallest variance of all is not advised, because its bias is not known
    assert rest.startswith("Of path nothing can be said")
    assert "Compare path with half in short trainings" in rest


def test_a_ratio_is_written_without_a_power_of_ten() -> None:
    assert [times(ratio) for ratio in (3.333, 21.0, 483.0, 47500.0)] == [
        "3.3 times",
        "21 times",
        "480 times",
        "48,000 times",
    ]


def test_without_a_reference_or_another_unbiased_estimator_nothing_is_advised() -> None:
    reference, path = measured("reference", 10.0, 2.0), measured("path", 0.1, 2.0, unbiased=False)
    (rest,) = advice_without_reference([reference, path], "path", "reference")
    assert "Compare path with reference" in rest
    assert advice_without_reference([reference], "reference", "reference") == []
