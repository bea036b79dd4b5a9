import pytest
import torch

from rlr.toy.rewards import DynamicCheck
from rlr.toy.world.motion import parse_video
from rlr.toy.world.videos import draw_videos

CAPTIONS = [
    "a red circle moving left",
    "two green hearts growing",
    "a blue cross standing still",
    "a red heart shrinking",
]
ASKED = ["whatever"] * 4


@pytest.fixture(scope="module")
def clips():
    return draw_videos([parse_video(caption) for caption in CAPTIONS], 0).float() / 255


def test_what_moves_or_changes_size_counts_whatever_was_asked_for(clips):
    assert DynamicCheck()(clips, ASKED).tolist() == [1, 1, 0, 1]
    order = torch.tensor([2, 0, 3, 1])
    assert DynamicCheck()(clips[order], ASKED).tolist() == [0, 1, 1, 1]


def test_time_may_run_backwards_but_must_not_stand_still(clips):
    assert DynamicCheck()(clips.flip(1), ASKED).tolist() == [1, 1, 0, 1]
    assert DynamicCheck()(clips[:, :1].expand_as(clips), ASKED).tolist() == [0, 0, 0, 0]


def test_an_empty_clip_is_still(clips):
    assert DynamicCheck()(torch.zeros_like(clips[:1]), ASKED[:1]).tolist() == [0]


def test_pictures_are_refused(clips):
    assert (DynamicCheck.supports_video, DynamicCheck.supports_images, DynamicCheck.differentiable) == (
        True,
        False,
        False,
    )
    with pytest.raises(ValueError, match=r"DynamicCheck got samples of shape \(4, 3, 32, 32\); pass videos"):
        DynamicCheck()(clips[:, 0], ASKED)
