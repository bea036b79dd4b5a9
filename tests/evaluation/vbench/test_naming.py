"""The name and number of a video follow from prompt and sample, and VBench reads the prompt back."""

import pytest

from rlr.evaluation.vbench.naming import LONGEST, VideoName, check_names, prompt_number


def test_the_name_is_that_of_vbench():
    assert VideoName("a cat, at night.", 3).file == "a cat, at night.-3.mp4"


def test_numbers_are_apart_and_never_change():
    prompts = ("a", "A", "a ", "a-1", "ä")
    assert len({VideoName(prompt, i).file for prompt in prompts for i in range(20)}) == 100
    numbers = {prompt_number(prompt) for prompt in prompts}
    assert len(numbers) == 5
    assert all(0 <= number < 2**63 for number in numbers)
    # another number would be another noise
    assert prompt_number("a cat") == 2950477471038028993


@pytest.mark.parametrize("prompt", ["a/b", "a\nb", "a\0b"])
def test_a_prompt_that_is_no_name(prompt):
    with pytest.raises(ValueError, match=r"^the prompt 'a.*b' cannot be the name of a file, as VBench asks; remove"):
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
