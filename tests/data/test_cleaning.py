from pathlib import Path

import pytest

from rlr.data import WithoutWords
from rlr.data.cleaning import ASSETS, Entry, check_disjoint, clean, drop_shared

ONE, OTHER = Path("one.txt"), Path("other.txt")


def entries(prompts, path=ONE):
    return [Entry(prompt, path, number) for number, prompt in enumerate(prompts, 1)]


def test_the_first_of_equal_prompts_is_kept_where_it_was():
    kept = clean(entries(["", " b", "a", "b\t", "\n", "B", "a"]))
    assert [(e.prompt, e.number) for e in kept] == [("b", 2), ("a", 3), ("B", 6)]
    assert clean(kept) == kept


@pytest.mark.parametrize(
    ("prompt", "kept"),
    [
        ("a nude woman", False),
        ("NUDE, oil on canvas", False),
        ("statue_of_a_nude", False),
        ("(nude:1.3)", False),
        ("nude", False),
        ("a denuded hill in Essex", True),
        ("a sextant and a cockatoo", True),
        ("a bowl of cherries", True),
    ],
)
def test_words_are_matched_whole_and_in_any_case(prompt, kept):
    assert WithoutWords()(prompt) is kept


def test_words_of_ones_own():
    keep = WithoutWords(["c++", " hot dog "])
    assert [keep(prompt) for prompt in ("code in C++", "a Hot Dog stand", "a hot corn dog", "a nude")] == [
        *(False, False),
        *(True, True),
    ]


@pytest.mark.parametrize("words", [[], ["a", " "]])
def test_a_filter_without_words(words):
    with pytest.raises(ValueError, match="WithoutWords needs words, none of them blank; leave out the filter"):
        WithoutWords(words)


def test_the_listed_words_are_sorted_and_distinct():
    words = (ASSETS / "unsafe_words.txt").read_text().splitlines()
    assert words == sorted(set(words))
    assert all(word == word.strip().lower() for word in words)


def test_shared_prompts_are_dropped():
    assert drop_shared(entries("abcd"), entries("xbd", OTHER)) == [entries("abcd")[0], entries("abcd")[2]]
    assert drop_shared([], entries("a")) == []


def test_how_many_were_dropped_is_said_once(monkeypatch):
    said = []
    monkeypatch.setattr("rlr.data.cleaning.rank_zero_info", said.append)
    drop_shared(entries("abc"), entries("xyz"))
    drop_shared(entries("abc"), entries("bc"))
    assert said == ["Dropped 2 of 3 prompts of . that are held out in another split."]


def test_a_shared_prompt_is_stated_with_both_places():
    check_disjoint(entries("abc"), entries("xyz", OTHER))
    with pytest.raises(ValueError, match=r"^line 2 of other.txt repeats line 3 of one.txt \('c'\), and no prompt"):
        check_disjoint(entries("abc"), entries("xc", OTHER))
