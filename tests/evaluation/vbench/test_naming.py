"""A clip's name and number follow from prompt and sample, and VBench reads the prompt back."""

import pytest

from rlr.evaluation.vbench.naming import LONGEST, Clip, check_names


def test_the_name_is_that_of_vbench():
    assert Clip("a cat, at night.", 3).name == "a cat, at night.-3.mp4"


def test_numbers_are_apart_and_never_change():
    clips = [Clip(prompt, i) for prompt in ("a", "A", "a ", "a-1", "ä") for i in range(20)]
    assert len({clip.key for clip in clips}) == len({clip.name for clip in clips}) == 100
    assert all(0 <= clip.key < 2**63 for clip in clips)
    # written down: another number would be another noise
    assert Clip("a cat", 0).key == 4596103127197247387


@pytest.mark.parametrize("prompt", ["a/b", "a\nb", "a\0b"])
def test_a_prompt_that_is_no_name(prompt):
    with pytest.raises(ValueError, match=r"^the prompt 'a.*b' cannot be the name of a file, as VBench asks; leave out"):
        check_names(["fine", prompt])


def test_a_prompt_that_is_too_long():
    check_names(["ü" * ((LONGEST - 9) // 2)])
    with pytest.raises(
        ValueError, match=r"is too long for the name of a file, as VBench asks; leave at most 221 bytes"
    ):
        check_names(["ü" * ((LONGEST - 9) // 2 + 1)])


def test_all_prompts_of_vbench_are_names():
    from rlr.data import VBenchPrompts

    check_names(VBenchPrompts().dimensions_of)
