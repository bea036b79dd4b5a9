import gzip
from importlib.resources import files

import pytest
from transformers import CLIPTokenizer

from rlr.rewards.networks.hpsv2 import MERGES
from rlr.toy.world.prompts import held_out_prompts, held_out_video_prompts
from rlr.toy.world.tokenizer import LENGTH, build_tokenizer, open_clip_tokenizer, video_words, words, write_merges


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_every_word_of_the_world_is_one_token(tokenizer):
    for word in words():
        assert len(tokenizer.tokenize(word)) == 1
    for caption in held_out_prompts(200):
        assert len(tokenizer(caption).input_ids) == len(caption.split()) + 2 <= LENGTH


def test_any_other_sentence_has_no_unknown_token(tokenizer):
    inner = tokenizer("A photo of žebras, été 12!").input_ids[1:-1]
    assert tokenizer.unk_token_id not in inner
    assert tokenizer.decode(inner).replace(" ", "") == "aphotoofžebras,été12!"


def test_it_survives_the_way_to_disk(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    for text in ("three purple crosses", "something else entirely"):
        assert again(text).input_ids == tokenizer(text).input_ids
    assert again.model_max_length == LENGTH


def test_every_word_of_a_clip_is_one_token_of_open_clip():
    read = open_clip_tokenizer()
    for word in video_words():
        assert len(read.encode(word)) == 1
    captions = [*held_out_video_prompts(200), *held_out_prompts(50)]
    for caption, tokens in zip(captions, read(captions), strict=True):
        assert int((tokens > 0).sum()) == len(caption.split()) + 2 <= LENGTH
    assert read(captions).shape == (250, LENGTH)


def test_the_longest_captions_fit():
    longest = [
        max(texts, key=lambda text: len(text.split()))
        for texts in (held_out_prompts(2000), held_out_video_prompts(2000))
    ]
    assert [len(text.split()) + 2 for text in longest] == [15, 17]


def test_stills_and_clips_share_no_more_than_the_words_of_stills():
    assert set(video_words()) - set(words()) == {
        "moving",
        "up",
        "down",
        "slowly",
        "quickly",
        "growing",
        "shrinking",
        "standing",
        "still",
    }


def test_open_clip_reports_any_other_sentences_apart():
    read = open_clip_tokenizer()
    texts = ["a photo of a cat", "a photo of a dog", "été 12!"]
    assert len({tuple(row.tolist()) for row in read(texts)}) == 3
    assert read.decode(read.encode("a photo of žebras")).strip() == "a photo of žebras"


def test_the_same_words_give_the_same_file(tmp_path):
    for name in ("one.gz", "other.gz"):
        write_merges(tmp_path / name)
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "other.gz").read_bytes()
    lines = gzip.decompress((tmp_path / "one.gz").read_bytes()).decode().split("\n")
    assert lines[0].startswith("#version")
    # a pair of pieces on every line, and no empty one that would be read as a merge
    assert all(len(line.split()) == 2 for line in lines[1:])


def test_the_file_in_the_package_is_the_one_that_is_written(tmp_path):
    write_merges(tmp_path / "merges.txt.gz")
    assert (files("rlr") / "toy" / "assets" / "tiny_hpsv2" / MERGES).read_bytes() == (
        tmp_path / "merges.txt.gz"
    ).read_bytes()
