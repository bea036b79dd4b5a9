"""What is asked of a video is what VBench needs to give a number that means something."""

import pytest

from rlr.evaluation.vbench.dimensions import DIMENSIONS, SIX, TEMPORAL_FLICKERING, named, with_free

BIG = {"height": 320, "width": 512, "fps": 8.0}


def test_the_six_are_those_of_the_prompts():
    from rlr.data.vbench import SIX as NAMES

    assert tuple(dimension.name for dimension in SIX) == NAMES


def test_a_usual_clip_can_be_judged_on_all():
    assert [dimension.objection(16, **BIG) for dimension in DIMENSIONS.values()] == [None] * 7


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("subject_consistency", 2),
        ("background_consistency", 2),
        ("motion_smoothness", 3),
        ("dynamic_degree", 3),
        ("aesthetic_quality", 1),
        ("imaging_quality", 1),
        ("temporal_flickering", 2),
    ],
)
def test_a_clip_must_have_frames_enough(name, least):
    dimension = DIMENSIONS[name]
    assert dimension.objection(least, **BIG) is None
    stated = dimension.objection(least - 1, **BIG)
    assert stated == f"has {least - 1} frames at 8 a second, and {name} needs {least}"


@pytest.mark.parametrize(("name", "least"), [("motion_smoothness", 113), ("dynamic_degree", 121)])
def test_a_frame_must_be_large_enough(name, least):
    dimension = DIMENSIONS[name]
    assert dimension.objection(16, least, 512, 8.0) is None
    for height, width in ((least - 1, 512), (512, least - 1)):
        stated = dimension.objection(16, height, width, 8.0)
        assert stated == f"has frames of {width} × {height} pixels, and {name} needs at least {least} × {least}"


@pytest.mark.parametrize(("fps", "seen"), [(8, 16), (10, 16), (12, 8), (16, 8), (24, 6), (28, 4), (1, 16), (0, 16)])
def test_dynamic_degree_looks_at_eight_frames_a_second(fps, seen):
    """As VBench does: every max(1, round(fps / 8))-th, the first included; Python rounds 1.5 to 2 and 3.5 to 4."""
    assert DIMENSIONS["dynamic_degree"].frames_seen(16, fps) == seen
    assert DIMENSIONS["motion_smoothness"].frames_seen(16, fps) == 16


def test_a_fast_clip_may_have_frames_too_few():
    stated = DIMENSIONS["dynamic_degree"].objection(16, 320, 512, 64.0)
    assert stated == "has 16 frames at 64 a second, of which dynamic_degree looks at 2, and dynamic_degree needs 3"


def test_dimensions_without_files_are_always_judged():
    assert with_free(SIX) == (*SIX, TEMPORAL_FLICKERING)
    assert with_free([TEMPORAL_FLICKERING]) == (TEMPORAL_FLICKERING,)


def test_names():
    assert named(["dynamic_degree", "imaging_quality", "dynamic_degree"]) == (SIX[3], SIX[5])
    with pytest.raises(ValueError, match=r"there is no dimension 'color' that can be judged here; there are subject_"):
        named(["color"])
