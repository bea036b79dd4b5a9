"""No two uses of a seed share random numbers."""

from itertools import product

import numpy as np
import pytest
import torch

from rlr.seeding import Stream, spawn


def keys() -> list[tuple[int, ...]]:
    """Indices of every length up to three, zeros at either end among them."""
    some = (0, 1, 2, 7, 63, 4095, 2**32 - 1, 2**32, 2**63)
    return [(), *((i,) for i in range(3000)), *product(some, repeat=2), *product(some, repeat=3)]


def test_no_two_streams_and_indices_share_a_seed() -> None:
    seeds = [spawn(seed, stream, *key) for seed in (0, 1) for stream in Stream for key in set(keys())]
    assert len(seeds) > 100_000
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_children_of_children_do_not_meet_their_siblings() -> None:
    parents = [spawn(0, Stream.ROLLOUT, n) for n in range(50)]
    seeds = [spawn(parent, stream, k) for parent in parents for stream in Stream for k in range(5)]
    assert len({*seeds, *parents}) == len(seeds) + len(parents)


def test_the_same_arguments_give_the_same_seed() -> None:
    assert spawn(1, Stream.SAMPLE, 2, 3) == spawn(1, Stream.SAMPLE, 2, 3)
    assert spawn(2**62, Stream.SAMPLE, 2) != spawn(2**62 + 1, Stream.SAMPLE, 2)


def test_words_of_entropy_would_collide() -> None:
    """The law above fails for keys that are appended to the entropy: NumPy pads entropy with zeros."""
    appended = [np.random.SeedSequence([5, *key]).generate_state(2).tolist() for key in ((7,), (7, 0))]
    assert appended[0] == appended[1]
    assert spawn(5, Stream.SAMPLE, 7) != spawn(5, Stream.SAMPLE, 7, 0)
    assert spawn(5, Stream.SAMPLE) != spawn(5, Stream.SAMPLE, 0)


def test_held_out_noise_is_never_that_of_training() -> None:
    def noise(seed: int) -> tuple[float, ...]:
        return tuple(torch.randn(4, generator=torch.Generator().manual_seed(seed)).tolist())

    training = {noise(spawn(0, Stream.SAMPLE, i)) for i in range(500)}
    held_out = {noise(spawn(0, Stream.EVALUATION, i, k)) for i in range(50) for k in range(10)}
    assert len(training) == len(held_out) == 500
    assert not training & held_out


@pytest.mark.parametrize("index", [-1, 2**64])
def test_an_index_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=r"expected indices in \[0, 2\*\*64\)"):
        spawn(0, Stream.SAMPLE, index)
