"""What holds for every set of prompts, whatever is in it."""

from collections import Counter
from itertools import chain
from types import SimpleNamespace

import pytest

from rlr.data import PromptData
from rlr.toy.data import WorldPrompts, WorldVideos
from tests.data.fixtures import EVALUATIONS, MAKERS

SPLITS = ("train", "val", "test", "predict")
DRAWN = (WorldPrompts, WorldVideos)
"""Those whose captions are drawn, so that one may come twice."""

training = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
evaluation = pytest.mark.parametrize("make", EVALUATIONS.values(), ids=EVALUATIONS)


def placed(data: PromptData, rank: int, world: int) -> PromptData:
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world, state=SimpleNamespace(fn=None))
    return data


def samples(loader) -> list[tuple[str, int]]:
    return [pair for batch in loader for pair in zip(*batch, strict=True)]


@evaluation
def test_training_and_evaluation_share_no_prompt(make):
    data = make()
    train, val, test, predict = (data.read(split) for split in SPLITS)
    assert not set(train) & {*val, *test, *predict}
    assert val == test or not set(val) & set(test)


@evaluation
def test_prompts_are_distinct_and_not_empty(make):
    data = make()
    for split in SPLITS:
        prompts = data.read(split)
        assert all(prompt == prompt.strip() != "" for prompt in prompts)
        assert len(set(prompts)) == len(prompts) or type(data) in DRAWN


@evaluation
def test_prompts_and_their_order_are_the_same_each_time(make):
    assert [make().read(split) for split in SPLITS] == [make().read(split) for split in SPLITS]


@training
def test_the_order_of_training_follows_from_the_seed(make):
    passes = [samples(make(batch_size=1, seed=seed).train_dataloader()) for seed in (1, 1, 6, 7)]
    assert passes[0] == passes[1]
    # the world's seed decides its captions, too
    same = Counter(p for p, _ in passes[0]) == Counter(p for p, _ in passes[2])
    assert same or type(make()) in DRAWN
    assert passes[2] != passes[0] != passes[3]


@training
def test_a_pass_takes_every_training_prompt_k_times_side_by_side(make):
    data = make(batch_size=3, samples_per_prompt=3)
    found = samples(data.train_dataloader())
    prompts = [prompt for prompt, _ in found]
    assert Counter(prompts) == Counter({p: 3 * n for p, n in Counter(data.read("train")).items()})
    assert all(len(set(prompts[i : i + 3])) == 1 for i in range(0, len(prompts), 3))
    assert [index for _, index in found] == list(range(len(found)))


@training
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_train_on_what_one_process_would(make, world):
    whole = samples(make(batch_size=2 * world, samples_per_prompt=2).train_dataloader())
    shares = [
        samples(placed(make(batch_size=2, samples_per_prompt=2), rank, world).train_dataloader())
        for rank in range(world)
    ]
    assert len({len(share) for share in shares}) == 1
    assert sorted(chain(*shares), key=lambda pair: pair[1]) == whole


@evaluation
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_evaluation_without_overlap(make, world):
    data = [placed(make(batch_size=2, evaluation_samples=2), rank, world) for rank in range(world)]
    for split, loader in (("val", "val_dataloader"), ("test", "test_dataloader"), ("predict", "predict_dataloader")):
        found = sorted(chain(*(samples(getattr(each, loader)()) for each in data)), key=lambda pair: pair[1])
        wanted = [prompt for prompt in data[0].read(split) for _ in range(2)]
        assert found == list(zip(wanted, range(len(wanted)), strict=True))
