"""Which estimator for a budget: the lowest error, for every number of seconds and bytes."""

import itertools

import numpy as np
import pytest

from rlr.analysis.direction import Direction
from rlr.analysis.recommendation import Choice, advice, best, by_memory, by_seconds, near

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


def test_near_are_those_of_nearly_the_same_error() -> None:
    close = choice("close", 0.2, 4.5, 2.0)
    assert near([*ALL, close], MIXED, 20.0) == [close]


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
