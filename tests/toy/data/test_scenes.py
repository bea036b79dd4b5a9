from itertools import islice

import torch

from rlr.toy.data.scenes import Stream, draw_images
from rlr.toy.world.caption import parse
from rlr.toy.world.checker import check


def first(stream, n):
    return [batch["k"].tolist() for batch in islice(stream, n)]


def test_a_stream_that_starts_late_continues_the_one_that_started_early():
    table = {"k": torch.arange(100), "captions": [str(k) for k in range(100)]}
    whole = first(Stream(table, 8, seed=1, start=lambda: 0), 10)
    assert first(Stream(table, 8, seed=1, start=lambda: 4), 6) == whole[4:]
    assert first(Stream(table, 8, seed=2, start=lambda: 0), 10) != whole


def test_processes_share_the_stream():
    table = {"k": torch.arange(100)}
    whole = first(Stream(table, 4, 0, start=lambda: 0), 6)
    parts = [first(Stream(table, 4, 0, start=lambda rank=rank: rank, stride=2), 3) for rank in (0, 1)]
    assert [batch for pair in zip(*parts, strict=True) for batch in pair] == whole


def test_columns_stay_together():
    table = {"k": torch.arange(100), "captions": [str(k) for k in range(100)]}
    for batch in islice(Stream(table, 8, 0, start=lambda: 0), 3):
        assert [str(k) for k in batch["k"].tolist()] == batch["captions"]


def test_pictures_show_their_captions_and_depend_on_seed_and_place_only():
    captions = ["a red circle", "two blue squares on a white background", "a green heart at the top"]
    pixels = draw_images(captions, 5)
    assert pixels.dtype == torch.uint8
    assert check(pixels / 255, [parse(c) for c in captions])["all"].all()
    assert torch.equal(draw_images(captions[:2], 5), pixels[:2])
    assert not torch.equal(draw_images(captions, 6), pixels)
