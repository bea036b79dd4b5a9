from dataclasses import replace

import numpy as np
import pytest
import torch

from rlr.toy.world.motion import MOTIONS, draw_video_spec, parse_video
from rlr.toy.world.videos import DISTANCES, FRAMES, GROWTH, animate, draw_videos

HEADINGS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@pytest.fixture(scope="module", params=MOTIONS, ids=lambda motion: motion.caption)
def moved(request):
    """Clips of one motion with their scenes."""
    drawn = [draw_video_spec(np.random.default_rng(k), (0.5, 0.25, 0.25)) for k in range(25)]
    clips = [replace(clip, motion=request.param) for clip in drawn]
    return request.param, [animate(clip, np.random.default_rng(k)) for k, clip in enumerate(clips)], clips


def test_every_frame_shows_the_same_things(moved):
    _, scenes, clips = moved
    for frames, clip in zip(scenes, clips, strict=True):
        assert len(frames) == FRAMES
        assert len({frame.background for frame in frames}) == 1
        looks = {tuple((t.color, t.shape, t.shade) for t in frame.things) for frame in frames}
        assert len(looks) == 1
        wanted = [(g.color, g.shape) for g in clip.spec.groups for _ in range(g.count)]
        assert [thing[:2] for thing in looks.pop()] == wanted


def test_things_move_alike_at_constant_speed_where_the_caption_says(moved):
    motion, scenes, _ = moved
    low, high = DISTANCES[motion.speed] if motion.direction else (0, 0)
    heading = np.array(HEADINGS.get(motion.direction, (0, 0)))
    for frames in scenes:
        spots = np.array([[(t.x, t.y) for t in frame.things] for frame in frames])
        way = spots[-1, 0] - spots[0, 0]
        assert low - 1e-9 <= np.abs(way).max() <= high + 1e-9
        np.testing.assert_allclose(way, heading * np.abs(way).max(), atol=1e-9)
        steps = np.diff(spots, axis=0)
        np.testing.assert_allclose(steps, np.broadcast_to(way / (FRAMES - 1), steps.shape), atol=1e-9)


def test_things_change_size_only_where_the_caption_says(moved):
    motion, scenes, _ = moved
    for frames in scenes:
        radii = np.array([[t.radius for t in frame.things] for frame in frames])
        ratio = radii[-1] / radii[0]
        np.testing.assert_allclose(ratio, ratio[0])
        change = ratio[0] if motion.size != "shrinking" else 1 / ratio[0]
        assert GROWTH[0] <= change <= GROWTH[1] if motion.size else change == 1


def test_things_stay_apart_and_in_the_picture(moved):
    _, scenes, _ = moved
    for things in (frame.things for frames in scenes for frame in frames):
        for k, thing in enumerate(things):
            assert thing.radius <= min(thing.x, 1 - thing.x, thing.y, 1 - thing.y)
            for other in things[:k]:
                assert np.hypot(thing.x - other.x, thing.y - other.y) > thing.radius + other.radius


def test_the_speeds_that_captions_name_do_not_overlap():
    assert DISTANCES["slowly"][1] < DISTANCES["quickly"][0]
    assert DISTANCES[None] == (DISTANCES["slowly"][0], DISTANCES["quickly"][1])


def test_a_clip_depends_on_seed_number_and_caption_only():
    clips = [
        parse_video(c) for c in ("a red circle growing", "two red hearts moving up", "a blue cross standing still")
    ]
    pixels = draw_videos(clips, 3)
    assert pixels.shape == (3, FRAMES, 3, 32, 32)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, draw_videos(clips, 3))
    assert torch.equal(pixels[:2], draw_videos(clips[:2], 3))
    assert torch.equal(pixels[1], draw_videos([clips[2], clips[1]], 3)[1])
    assert not torch.equal(pixels, draw_videos(clips, 4))
    assert not torch.equal(pixels[1], draw_videos(clips[1:], 3)[0])


def test_a_longer_clip_makes_the_same_way_in_smaller_steps():
    clip = parse_video("a red circle moving right")
    short, long = (animate(clip, np.random.default_rng(0), frames) for frames in (5, 9))
    for coarse, fine in zip(short, long[::2], strict=True):
        assert coarse.things[0].x == pytest.approx(fine.things[0].x)
