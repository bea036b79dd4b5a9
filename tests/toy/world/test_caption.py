import numpy as np
import pytest

from rlr.toy.world.caption import KINDS, NAMING, NOVEL_PAIRS, Group, Spec, altered, draw, parse
from rlr.toy.world.prompts import TRAINING_NAMING, held_out_prompts, training_prompts


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_read_back_is_the_same_spec(kind):
    for seed in range(200):
        spec = draw(np.random.default_rng(seed), kind)
        assert spec.kind == kind
        assert parse(spec.caption) == spec


def test_a_caption_says_what_the_grammar_says():
    spec = Spec((Group(1, "orange", "heart"), Group(1, "blue", "cross")), relation="left of", tone="gray")
    assert spec.caption == "an orange heart left of a blue cross on a gray background"
    assert Spec((Group(3, "red", "cross"),)).caption == "three red crosses"


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a cat",
        "a orange heart",
        "two red circle",
        "a red circles",
        "two red circles on the left",
        "a red circle and a red square",
        "a red circle and two blue squares",
        "a red circle on the left and a blue square",
        "a red circle on a plain background",
        "A red circle",
    ],
)
def test_what_is_not_in_the_grammar_is_refused(caption):
    with pytest.raises(ValueError, match="not a caption of the built-in world"):
        parse(caption)


def test_an_altered_spec_differs_in_one_claim_only():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        spec = draw(rng)
        for claim, other in altered(spec, rng).items():
            assert other != spec
            assert parse(other.caption) == other
            here, there = spec.caption.split(), other.caption.split()
            if claim in ("color", "background"):
                # "a red" may become "an orange": the article follows the color
                changed = [(a, b) for a, b in zip(here, there, strict=True) if a != b and a not in ("a", "an")]
                assert len(changed) == 1


def test_training_never_says_a_novel_pair_or_a_held_out_caption():
    training = training_prompts(4000, seed=3)
    specs = [parse(caption) for caption in training]
    assert not {(g.color, g.shape) for spec in specs for g in spec.groups} & NOVEL_PAIRS
    assert not set(training) & set(held_out_prompts(600, seed=3))
    assert len(training_prompts(4000, seed=3)) == 4000
    assert training == training_prompts(4000, seed=3)


def test_every_third_held_out_prompt_is_novel():
    novel = [parse(caption).novel for caption in held_out_prompts(300, seed=1)]
    assert novel == [k % 3 == 0 for k in range(300)]


@pytest.mark.parametrize(("prompts", "naming"), [(training_prompts, TRAINING_NAMING), (held_out_prompts, NAMING)])
def test_captions_name_the_background_as_often_as_said(prompts, naming):
    specs = [parse(caption) for caption in prompts(4000, 5)]
    textured = np.mean([spec.texture is not None for spec in specs])
    bare = np.mean([spec.tone is None for spec in specs])
    # four standard errors of a share of 4000; captions kept from training are few and of every kind
    assert abs(textured - naming[2]) < 0.04
    assert abs(bare - naming[0]) < 0.04
