import pytest
from transformers import CLIPTokenizer

from rlr.world.prompts import held_out_prompts
from rlr.world.tokenizer import LENGTH, build_tokenizer, words


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
