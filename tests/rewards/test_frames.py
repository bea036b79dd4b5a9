"""An image reward on frames of videos."""

import pytest
import torch

from rlr.rewards import Brightness, JPEGCompressibility, PickScore
from rlr.rewards.frames import AllFrames, EvenlySpaced, FrameReward, RandomFrame
from tests.rewards.authors import hpsv2
from tests.rewards.folder import FOLDER

PROMPTS = ["a cat", "a dog", "rain"]


@pytest.fixture(scope="module")
def videos():
    return torch.rand(3, 5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def pick():
    return PickScore(str(FOLDER))


@pytest.mark.parametrize("choice", [AllFrames(), EvenlySpaced(2), EvenlySpaced(1)])
def test_every_frame_meets_the_prompt_of_its_own_video(pick, videos, choice):
    one_by_one = [
        torch.stack([pick(video[None, frame], [prompt])[0] for frame in choice(5)]).mean()
        for video, prompt in zip(videos, PROMPTS, strict=True)
    ]
    torch.testing.assert_close(
        FrameReward(pick, choice)(videos, PROMPTS), torch.stack(one_by_one), atol=1e-4, rtol=1e-5
    )


def test_permuting_the_batch_permutes_the_scores(pick, videos):
    reward, order = FrameReward(pick, RandomFrame()), [2, 0, 1]
    scores = reward(videos, PROMPTS)
    permuted = reward(videos[order], [PROMPTS[i] for i in order])
    torch.testing.assert_close(permuted, scores[order], atol=1e-4, rtol=1e-5)


def test_the_gradient_is_in_the_chosen_frames_alone(pick, videos):
    x = videos.clone().requires_grad_()
    scores = FrameReward(pick, EvenlySpaced(2))(x, PROMPTS)
    (slope,) = torch.autograd.grad(scores[1], x)
    assert slope.abs().amax((2, 3, 4)).gt(0).tolist() == [[False] * 5, [i in (1, 3) for i in range(5)], [False] * 5]


@pytest.mark.parametrize(
    ("choice", "frames", "expected"),
    [
        (EvenlySpaced(1), 16, [8]),
        (EvenlySpaced(2), 16, [4, 12]),
        (EvenlySpaced(3), 7, [1, 3, 5]),
        (EvenlySpaced(4), 4, [0, 1, 2, 3]),
        (AllFrames(), 3, [0, 1, 2]),
        (RandomFrame(), 3, [0, 1, 2]),
    ],
)
def test_which_frames(choice, frames, expected):
    assert choice(frames) == expected
    assert choice.draw(frames, 7) == expected or (isinstance(choice, RandomFrame) and len(choice.draw(frames, 7)) == 1)


def test_a_random_frame_is_any_frame_with_the_same_chance():
    state = torch.get_rng_state()
    drawn = torch.tensor([RandomFrame().draw(4, seed)[0] for seed in range(2000)])
    counts = torch.bincount(drawn, minlength=4)
    assert len(counts) == 4
    assert ((counts - 500).abs() < 4 * (2000 * 0.25 * 0.75) ** 0.5).all()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_selection_scores_the_frames_it_names(pick, videos):
    reward = FrameReward(pick, EvenlySpaced(2))
    selection = reward.select_frames(5, 0)
    assert selection.frames == [1, 3]
    assert torch.equal(selection.score(videos[:, [1, 3]], PROMPTS).values, reward(videos, PROMPTS))


def test_the_mean_over_draws_is_the_score_of_the_video(videos):
    reward = FrameReward(Brightness())
    selections = {found.frames[0]: found for found in (reward.select_frames(5, seed) for seed in range(100))}
    assert sorted(selections) == list(range(5))
    scores = [found.score(videos[:, [frame]], PROMPTS).values for frame, found in selections.items()]
    torch.testing.assert_close(torch.stack(scores).mean(0), reward(videos, PROMPTS))


def test_the_mean_over_frames(videos):
    expected = videos.flatten(1).mean(1)
    torch.testing.assert_close(FrameReward(Brightness(), AllFrames())(videos, PROMPTS), expected)


def test_it_reports_the_facts_of_its_image_reward():
    assert not FrameReward(JPEGCompressibility()).differentiable
    reward = FrameReward(hpsv2())
    assert (reward.label, reward.scales, reward.differentiable) == ("HPSv2.1", {"x100": 100}, True)


def test_too_few_frames():
    with pytest.raises(ValueError, match=r"EvenlySpaced\(6\) got a video of 5 frames; choose 1 … 5 of them"):
        EvenlySpaced(6)(5)


def test_pictures_are_refused(pick):
    with pytest.raises(ValueError, match=r"FrameReward got samples of shape \(3, 3, 32, 32\) and 3 prompts"):
        FrameReward(pick)(torch.rand(3, 3, 32, 32), PROMPTS)
