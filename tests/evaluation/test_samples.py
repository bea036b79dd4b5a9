"""Sets of samples: each sample has one noise, each rank its own prompts, and each set of prompts a key of its own."""

import pytest

from rlr.evaluation import SampleSet
from rlr.seeding import Stream, spawn


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_ranks_share_the_rows_and_none_is_left_out(world):
    samples = SampleSet(["a", "b", "c", "d"], samples=3)
    rows = [row for rank in range(world) for row in samples.rows(rank, world)]
    assert sorted(rows) == list(range(len(samples))) == list(range(12))


def test_the_noise_of_a_sample_follows_from_its_numbers_alone():
    some, more = SampleSet(["a", "b"], samples=2, seed=7), SampleSet(["a", "b", "c"], samples=2, seed=7)
    assert [some.seed_of(row) for row in some.rows()] == [more.seed_of(row) for row in some.rows()]
    assert some.seed_of(3) == spawn(7, Stream.EVALUATION, 1, 1)
    numbered = SampleSet(["c"], samples=2, seed=7, numbers=[2])
    assert numbered.seed_of(1) == more.seed_of(5)


def test_prompts_with_line_breaks_have_keys_of_their_own():
    assert SampleSet(["a\nb", "c"]).key != SampleSet(["a", "b\nc"]).key
    assert SampleSet(["a', 'b"]).key != SampleSet(["a", "b"]).key
