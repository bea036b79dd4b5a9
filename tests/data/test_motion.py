from collections import Counter

import pytest

from rlr.data import MotionPrompts
from rlr.data.motion import rows

CATEGORIES = ("sports", "clothes", "instruments")


def of(category: str, split: str) -> list[dict[str, str]]:
    return [row for row in rows() if (row["category"], row["split"]) == (category, split)]


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_third_of_each_category_is_held_out(category):
    data = MotionPrompts((category,))
    assert (len(data.read("train")), len(data.read("test"))) == (36, 18)
    assert data.read("val") == data.read("test") == data.read("predict")
    assert set(data.category_of.values()) == {category}


def test_all_categories_are_the_default():
    data = MotionPrompts()
    assert (len(data.read("train")), len(data.read("test"))) == (108, 54)
    assert Counter(data.category_of.values()) == dict.fromkeys(CATEGORIES, 54)
    assert set(data.category_of) == {*data.read("train"), *data.read("test")}


@pytest.mark.parametrize("category", CATEGORIES)
def test_what_is_held_out_is_new_in_three_ways(category):
    train = of(category, "train")
    subjects, things = ({row[key] for row in train} for key in ("subject", "thing"))
    pairs = {(row["subject"], row["thing"]) for row in train}
    held_out = of(category, "held_out")
    kinds = Counter((row["subject"] in subjects, row["thing"] in things) for row in held_out)
    assert kinds == {(True, True): 6, (False, True): 6, (True, False): 6}
    assert not pairs & {(row["subject"], row["thing"]) for row in held_out}
    assert len(subjects) >= 12
    assert len(things) >= 24


def test_a_prompt_is_a_sentence_that_names_its_subject_and_thing():
    found = rows()
    assert len({row["prompt"] for row in found}) == len(found) == 162
    for row in found:
        assert row["subject"] in row["prompt"].lower()
        # "playing the drums", "drumming on a set of drums"
        assert row["thing"] in row["prompt"]
        assert row["prompt"].startswith(("A ", "An "))
        assert 6 <= len(row["prompt"].split()) <= 16


def test_the_text_encoder_reads_every_word():
    # CLIP's takes 75 tokens; a word is rarely more than two
    assert max(len(row["prompt"].split()) for row in rows()) < 37


def test_an_unknown_category():
    with pytest.raises(
        ValueError, match="MotionPrompts has no category 'dance'; there are sports, clothes, instruments"
    ):
        MotionPrompts(("dance",))


def test_no_category():
    with pytest.raises(ValueError, match=r"has no prompts for 'train'; set data.init_args.categories"):
        MotionPrompts(()).train_dataloader()
