import itertools
from collections import Counter

import pytest

from rlr.data import PromptPass, PromptStream

PROMPTS = [f"prompt {i}" for i in range(10)]


def read(stream, batches):
    """The samples of the next batches, whatever the number of epochs they take."""
    everything = itertools.chain.from_iterable(iter(stream) for _ in itertools.count())
    return [pair for batch in itertools.islice(everything, batches) for pair in zip(*batch, strict=True)]


def test_every_pass_holds_every_prompt_once():
    samples = read(PromptStream(PROMPTS, 4), 15)
    for start in range(0, 60, 10):
        assert sorted(prompt for prompt, _ in samples[start : start + 10]) == PROMPTS


def test_the_order_follows_from_seed_and_pass():
    one, again, other = (read(PromptStream(PROMPTS, 5, seed=seed), 4) for seed in (3, 3, 4))
    assert one == again != other
    assert [p for p, _ in one[:10]] != [p for p, _ in one[10:]]
    assert [p for p, _ in read(PromptStream(PROMPTS, 5, shuffle=False), 2)] == PROMPTS


def test_samples_are_numbered_without_end():
    assert [index for _, index in read(PromptStream(PROMPTS, 3), 20)] == list(range(60))


def test_the_samples_of_a_prompt_stand_side_by_side():
    samples = read(PromptStream(PROMPTS, 6, repeat=3), 10)
    for start in range(0, 60, 3):
        assert len({prompt for prompt, _ in samples[start : start + 3]}) == 1
    assert set(Counter(prompt for prompt, _ in samples).values()) == {6}


@pytest.mark.parametrize("repeat", [1, 2])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_read_what_one_process_reads(world, repeat):
    whole = read(PromptStream(PROMPTS, 4 * world, repeat), 6)
    ranks = [PromptStream(PROMPTS, 4, repeat, rank=rank, world=world) for rank in range(world)]
    assert {len(stream) for stream in ranks} == {len(PromptStream(PROMPTS, 4 * world, repeat))}
    parts = [read(stream, 6) for stream in ranks]
    merged = [sample for n in range(6) for part in parts for sample in part[4 * n : 4 * n + 4]]
    assert merged == whole


@pytest.mark.parametrize("position", [0, 1, 2, 3, 7])
def test_a_restored_stream_goes_on_where_it_was(position):
    whole, part, resumed = (PromptStream(PROMPTS, 4, seed=1) for _ in range(3))
    expected = read(whole, 12)
    assert read(part, position) == expected[: 4 * position]
    resumed.load_state_dict(part.state_dict())
    assert read(resumed, 12 - position) == expected[4 * position :]


@pytest.mark.parametrize(
    ("size", "world", "repeat"), [(2, 1, 2), (4, 1, 2), (8, 1, 2), (2, 2, 2), (2, 3, 2), (6, 2, 2)]
)
@pytest.mark.parametrize("batches", [1, 3, 8])
def test_a_stream_goes_on_with_the_next_unseen_sample_elsewhere(batches, size, world, repeat):
    """In batches of another size, on another number of ranks: the samples are those of the run that was not stopped."""
    whole, part = PromptStream(PROMPTS, 6, repeat, seed=1), PromptStream(PROMPTS, 3 * repeat, repeat, seed=1)
    expected = read(whole, 24)
    assert read(part, batches) == expected[: 6 * batches]
    ranks = [PromptStream(PROMPTS, size, repeat, seed=1, rank=rank, world=world) for rank in range(world)]
    for stream in ranks:
        stream.load_state_dict(part.state_dict())
    rounds = (24 - batches) * 6 // (size * world)
    parts = [read(stream, rounds) for stream in ranks]
    merged = [sample for n in range(rounds) for share in parts for sample in share[size * n : size * (n + 1)]]
    assert merged == expected[6 * batches :][: rounds * size * world]
    assert len({tuple(stream.state_dict().items()) for stream in ranks}) == 1


@pytest.mark.parametrize(("repeat", "other"), [(3, 2), (2, 3), (1, 6), (6, 1)])
def test_with_other_numbers_of_samples_of_a_prompt_no_prompt_and_no_number_comes_twice(repeat, other):
    part, resumed = (PromptStream(PROMPTS, 6, k, shuffle=False) for k in (repeat, other))
    before = read(part, 1)
    resumed.load_state_dict(part.state_dict())
    after = read(resumed, 2)
    assert list(dict.fromkeys(prompt for prompt, _ in before + after)) == PROMPTS[: 6 // repeat + 12 // other]
    assert [number for _, number in before + after] == list(range(18))


@pytest.mark.parametrize(
    "state", [{"position": 3}, {"samples": "3", "prompts": 3}, {"samples": -1, "prompts": 0}, None, 3]
)
def test_a_state_of_another_kind_is_refused(state):
    with pytest.raises(
        ValueError, match=r"expected the numbers 'samples' and 'prompts', found .*; start a new run, or"
    ):
        PromptStream(PROMPTS, 4).load_state_dict(state)


def test_an_epoch_is_as_many_batches_as_a_pass_fills():
    assert len(PromptStream(PROMPTS, 4)) == len(list(PromptStream(PROMPTS, 4))) == 3
    assert len(PromptStream(PROMPTS, 64)) == 1


def test_evaluation_takes_every_prompt_once_in_order():
    batches = list(PromptPass(PROMPTS, 4, repeat=2))
    assert [p for batch in batches for p in batch.prompts] == [p for p in PROMPTS for _ in range(2)]
    assert [i for batch in batches for i in batch.indices] == list(range(20))
    assert len(batches) == len(PromptPass(PROMPTS, 4, repeat=2)) == 5


@pytest.mark.parametrize("prompts", [1, 2, 7, 8])
@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_without_a_sample_are_as_long_as_the_others(prompts, world):
    """A rank of length 0 would leave out the trainer's loop, and the others would wait for it."""
    passes = [PromptPass(PROMPTS[:prompts], 2, rank=rank, world=world) for rank in range(world)]
    assert {len(each) for each in passes} == {max(len(list(each)) for each in passes)}
    assert sum(len(batch.prompts) for each in passes for batch in each) == prompts


def test_evaluation_is_shared_out_without_overlap():
    shares = [[i for batch in PromptPass(PROMPTS, 4, rank=r, world=3) for i in batch.indices] for r in range(3)]
    assert sorted(itertools.chain(*shares)) == list(range(10))
    assert [len(share) for share in shares] == [4, 3, 3]
    assert all(
        prompt == PROMPTS[i] for b in PromptPass(PROMPTS, 4, rank=1, world=3) for prompt, i in zip(*b, strict=True)
    )
