from dataclasses import replace

import numpy as np
import pytest

from rlr.toy.world.caption import COLORS, SHAPES, TEXTURES, TONES, Group, Spec, parse
from rlr.toy.world.motion import (
    DIRECTIONS,
    MOST,
    MOTIONS,
    SPEEDS,
    VIDEO_KINDS,
    Motion,
    VideoSpec,
    draw_video_spec,
    insert,
    parse_video,
)
from rlr.toy.world.prompts import held_out_video_prompts, training_video_prompts

SINGLES = [Group(1, color, shape) for color in COLORS for shape in SHAPES]
THINGS = [
    *(Spec((replace(group, count=count),)) for group in SINGLES for count in range(1, MOST + 1)),
    *(Spec((one, other)) for one in SINGLES for other in SINGLES if one.color != other.color),
]
BACKGROUNDS = [(None, None), *((tone, texture) for tone in TONES for texture in (None, *TEXTURES))]


def test_every_caption_of_the_grammar_reads_back():
    clips = [VideoSpec(spec, motion) for spec in THINGS for motion in MOTIONS]
    clips += [
        VideoSpec(replace(spec, tone=tone, texture=texture), motion)
        for spec in (THINGS[0], THINGS[17], THINGS[-1])
        for tone, texture in BACKGROUNDS
        for motion in MOTIONS
    ]
    assert len({clip.caption for clip in clips}) == len(set(clips)) > 12_000
    for clip in clips:
        assert parse_video(clip.caption) == clip


def test_there_are_fifteen_motions():
    assert len(set(MOTIONS)) == len({motion.caption for motion in MOTIONS}) == 15
    moving = [motion for motion in MOTIONS if motion.direction]
    assert {(m.direction, m.speed) for m in moving} == {(d, s) for d in DIRECTIONS for s in (None, *SPEEDS)}


def test_a_caption_says_what_the_grammar_says():
    pair = Spec((Group(1, "orange", "heart"), Group(1, "blue", "cross")), tone="gray", texture="striped")
    assert VideoSpec(pair, Motion("left", "quickly")).caption == (
        "an orange heart and a blue cross moving left quickly on a gray striped background"
    )
    assert VideoSpec(Spec((Group(3, "red", "cross"),)), Motion(size="growing")).caption == "three red crosses growing"
    assert VideoSpec(Spec((Group(1, "red", "cross"),)), Motion()).caption == "a red cross standing still"


def test_a_phrase_goes_before_the_background_of_any_still_caption():
    assert insert("a red circle on the left", "growing") == "a red circle on the left growing"
    assert insert("a red circle on a gray background", "growing") == "a red circle growing on a gray background"


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a red circle",
        "growing",
        "a cat growing",
        "a red circle moving",
        "a red circle moving sideways",
        "a red circle moving slowly",
        "a red circle moving left quickly slowly",
        "a red circle moving left moving left",
        "a red circle moving left growing",
        "a red circle growing quickly",
        "a red circle standing",
        "two red circle growing",
        "four red circles growing",
        "a red circle on the left growing",
        "a red circle growing on the left",
        "a red circle left of a blue square growing",
        "a red circle growing and a blue square",
        "a red circle and a red square growing",
        "a red circle on a white background growing",
        "a red circle growing on a plain background",
        "growing a red circle",
        " a red circle growing",
        "A red circle growing",
    ],
)
def test_what_is_not_in_the_grammar_is_refused(caption):
    with pytest.raises(ValueError, match="is not a caption of the built-in world's videos"):
        parse_video(caption)


def test_still_pictures_refuse_a_motion():
    with pytest.raises(ValueError, match="not a caption of the built-in world"):
        parse("a red circle growing")


def test_what_is_drawn_is_in_the_grammar_and_covers_it():
    clips = [draw_video_spec(np.random.default_rng(seed), (0.5, 0.25, 0.25)) for seed in range(2000)]
    assert all(parse_video(clip.caption) == clip for clip in clips)
    assert {clip.motion for clip in clips} == set(MOTIONS)
    assert {clip.spec.kind for clip in clips} == set(VIDEO_KINDS)
    # four standard errors of a share of 2000
    assert abs(np.mean([clip.motion.direction is not None for clip in clips]) - 2 / 3) < 0.043


def test_training_never_says_what_is_held_out():
    training, held_out = training_video_prompts(1500, 3), held_out_video_prompts(400, 3)
    assert all(parse_video(caption).for_training for caption in training)
    assert not any(parse_video(caption).for_training for caption in held_out)
    # nor does it show the same things with another motion
    assert not {parse_video(c).spec for c in training} & {parse_video(c).spec for c in held_out}


@pytest.mark.parametrize("prompts", [training_video_prompts, held_out_video_prompts])
def test_the_k_th_prompt_depends_on_seed_and_k_only(prompts):
    assert prompts(30, 5) == prompts(60, 5)[:30]
    assert prompts(30, 5) != prompts(30, 6)
