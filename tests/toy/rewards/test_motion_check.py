import pytest

from rlr.toy.rewards import MotionCheck
from rlr.toy.world.motion import parse_video
from rlr.toy.world.videos import draw_videos

RIGHT = ["a red circle moving left slowly on a white background", "two green hearts growing", "a blue cross moving up"]
WRONG = ["a red circle moving right slowly on a white background", "two green hearts shrinking", "a red cross growing"]


@pytest.fixture(scope="module")
def clips():
    return draw_videos([parse_video(caption) for caption in RIGHT], 0).float() / 255


def test_renders_fulfil_their_captions_and_no_others(clips):
    assert MotionCheck()(clips, RIGHT).tolist() == [1, 1, 1]
    assert MotionCheck()(clips, WRONG).tolist() == [0, 0, 0]
    assert MotionCheck()(clips.flip(1), RIGHT).tolist() == [0, 0, 0]


def test_partial_is_the_share_of_the_captions_claims(clips):
    partial = MotionCheck(partial=True)
    assert partial(clips, RIGHT).tolist() == [1, 1, 1]
    # of count, color, shape, binding, background, motion, direction, speed the last three fail;
    # of count, color, shape, binding, motion the last; of the same color, binding and motion
    assert partial(clips, WRONG).tolist() == pytest.approx([5 / 8, 4 / 5, 2 / 5])


def test_every_clip_meets_its_own_prompt(clips):
    order = [2, 0, 1]
    mixed = [RIGHT[0], WRONG[1], RIGHT[2]]
    assert MotionCheck()(clips, mixed).tolist() == [1, 0, 1]
    assert MotionCheck()(clips[order], [mixed[k] for k in order]).tolist() == [1, 1, 0]


def test_there_is_no_gradient_and_it_says_so(clips):
    reward = MotionCheck(partial=True)
    assert not reward.differentiable
    assert not reward(clips.clone().requires_grad_(), RIGHT).requires_grad


def test_it_reads_clips_and_no_pictures(clips):
    assert (MotionCheck.supports_video, MotionCheck.supports_images) == (True, False)
    with pytest.raises(ValueError, match=r"MotionCheck got samples of shape \(3, 3, 32, 32\); .* images to ExactCheck"):
        MotionCheck()(clips[:, 0], RIGHT)


def test_it_needs_a_caption_of_a_clip(clips):
    with pytest.raises(ValueError, match="'a red circle' is not a caption of the built-in world's videos"):
        MotionCheck()(clips[:1], ["a red circle"])
