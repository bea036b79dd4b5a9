from dataclasses import replace

import numpy as np
import pytest
import torch

from rlr.toy.world.caption import altered
from rlr.toy.world.motion import MOTIONS, Motion, VideoSpec, draw_video_spec, parse_video
from rlr.toy.world.render import render
from rlr.toy.world.scene import Background, Scene, Thing
from rlr.toy.world.tracker import CLAIMS, PICTURED, check_videos, track
from rlr.toy.world.videos import FRAMES, animate, draw_videos

OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
OTHER_SIZE = {"growing": "shrinking", "shrinking": "growing"}
# uncorrelated with time, so that the straight line through the frames is level
SHUFFLED = [5, 0, 3, 6, 2, 7, 4, 1]


@pytest.fixture(scope="module")
def world():
    """Five videos of every motion, with their pixels."""
    drawn = [draw_video_spec(np.random.default_rng(k), (0.4, 0.2, 0.4)) for k in range(5 * len(MOTIONS))]
    clips = [replace(clip, motion=MOTIONS[k % len(MOTIONS)]) for k, clip in enumerate(drawn)]
    return clips, draw_videos(clips, 7).float() / 255


def reverse(motion: Motion) -> Motion:
    return Motion(OPPOSITE.get(motion.direction or ""), motion.speed, OTHER_SIZE.get(motion.size or ""))


def moving(clips) -> torch.Tensor:
    return torch.tensor([clip.motion != Motion() for clip in clips])


def true(checks, name, chosen=slice(None)) -> bool:
    """Whether every video that makes the claim fulfils it."""
    return bool((checks[name][chosen].nan_to_num(1.0) == 1).all())


def test_real_renders_fulfil_every_claim(world):
    clips, pixels = world
    checks = check_videos(pixels, clips)
    assert set(checks) == {*CLAIMS, "dynamic"}
    assert (checks["dynamic"] == 1).tolist() == moving(clips).tolist()
    for claim in CLAIMS:
        assert true(checks, claim), claim


def test_a_claim_that_is_not_made_is_not_judged(world):
    clips, pixels = world
    checks = check_videos(pixels, clips)
    asked = {
        "direction": [clip.motion.direction is not None for clip in clips],
        "speed": [clip.motion.speed is not None for clip in clips],
        "background": [clip.spec.tone is not None for clip in clips],
    }
    for claim in CLAIMS:
        assert (~checks[claim].isnan()).tolist() == asked.get(claim, [True] * len(clips))


def test_reversed_frames_turn_direction_and_growth_round(world):
    clips, pixels = world
    checks = check_videos(pixels.flip(1), clips)
    moves = moving(clips)
    for claim in ("motion", "direction", "all"):
        assert checks[claim][moves].nansum() == 0
    assert true(checks, "all", ~moves)
    assert all(true(checks, claim) for claim in PICTURED)
    backwards = [VideoSpec(clip.spec, reverse(clip.motion)) for clip in clips]
    assert true(check_videos(pixels.flip(1), backwards), "all")


def test_shuffled_frames_move_nowhere(world):
    clips, pixels = world
    assert np.corrcoef(SHUFFLED, range(FRAMES))[0, 1] == pytest.approx(0)
    checks, moves = check_videos(pixels[:, SHUFFLED], clips), moving(clips)
    assert checks["motion"][moves].sum() == 0
    assert true(checks, "motion", ~moves)
    assert all(true(checks, claim) for claim in PICTURED)


def test_a_still_that_is_repeated_stands_still(world):
    clips, pixels = world
    frozen = pixels[:, 3:4].expand_as(pixels)
    checks, moves = check_videos(frozen, clips), moving(clips)
    assert checks["all"][moves].sum() == 0
    assert true(checks, "all", ~moves)
    assert true(check_videos(frozen, [VideoSpec(clip.spec, Motion()) for clip in clips]), "all")


@pytest.mark.parametrize("claim", ["count", "color", "shape", "background"])
def test_one_altered_claim_of_the_picture_fails_alone(world, claim):
    clips, pixels = world
    others = [altered(clip.spec, np.random.default_rng(k)) for k, clip in enumerate(clips)]
    index = [k for k, other in enumerate(others) if claim in other]
    checks = check_videos(pixels[index], [VideoSpec(others[k][claim], clips[k].motion) for k in index])
    assert len(index) > 15
    assert checks[claim].sum() == checks["all"].sum() == 0
    assert true(checks, "motion")
    assert true(checks, "speed")


def test_another_motion_fails(world):
    clips, pixels = world
    shifts = np.repeat([1, 2, 5, 8, 13], len(MOTIONS))
    others = [VideoSpec(clip.spec, MOTIONS[(k + shifts[k]) % len(MOTIONS)]) for k, clip in enumerate(clips)]
    checks = check_videos(pixels, others)
    # a caption without a speed is true of both speeds
    implied = [
        (theirs.motion.direction, theirs.motion.size) == (mine.motion.direction, mine.motion.size)
        for theirs, mine in zip(others, clips, strict=True)
    ]
    assert 0 < sum(implied) < len(clips) / 4
    assert (checks["motion"] == 1).tolist() == implied
    assert all(true(checks, claim) for claim in PICTURED)


def test_the_wrong_speed_fails_alone(world):
    clips, pixels = world
    other = {"slowly": "quickly", "quickly": "slowly"}
    index = [k for k, clip in enumerate(clips) if clip.motion.speed]
    wrong = [replace(clips[k].motion, speed=other[clips[k].motion.speed]) for k in index]
    checks = check_videos(
        pixels[index], [VideoSpec(clips[k].spec, motion) for k, motion in zip(index, wrong, strict=True)]
    )
    assert checks["speed"].sum() == checks["all"].sum() == 0
    assert true(checks, "direction")


def test_one_lost_frame_changes_no_verdict(world):
    clips, pixels = world
    flickering = pixels.clone()
    flickering[:, 2] = 0.5
    checks = check_videos(flickering, clips)
    assert checks["all"].mean() > 0.98


def test_a_clip_in_which_most_frames_are_wrong_fails(world):
    clips, pixels = world
    mostly_red = pixels.clone()
    mostly_red[:, :4] = pixels[:, :4, [1, 2, 0]]
    assert check_videos(mostly_red, clips)["color"].sum() == 0


def test_what_shows_nothing_has_no_motion():
    clips = [parse_video("a red circle standing still")] * 2
    noise = torch.rand(2, FRAMES, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for pixels in (torch.full_like(noise, 0.5), 0.5 + 0.1 * noise):
        assert track(pixels) == [[], []]
        assert check_videos(pixels, clips)["motion"].sum() == 0
    assert check_videos(noise, clips)["all"].sum() == 0


def test_each_clip_is_judged_alone(world):
    clips, pixels = world
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0))
    straight, permuted = check_videos(pixels, clips), check_videos(pixels[order], [clips[k] for k in order])
    for claim in CLAIMS:
        torch.testing.assert_close(permuted[claim], straight[claim][order], equal_nan=True)


def test_a_motion_is_measured_in_sides_of_the_picture(world):
    """Against the scenes that were drawn, in which all things move alike."""
    clips, pixels = world
    for k in range(0, len(clips), 4):
        scenes = animate(clips[k], np.random.default_rng((7, k, 4)))
        (tracks,) = track(pixels[k : k + 1])
        assert len(tracks) == clips[k].spec.total
        first, last = scenes[0].things[0], scenes[-1].things[0]
        for found in tracks:
            assert found.dx == pytest.approx(last.x - first.x, abs=0.02)
            assert found.dy == pytest.approx(last.y - first.y, abs=0.02)
            assert found.growth == pytest.approx(2 * np.log(last.radius / first.radius), abs=0.1)


def test_colors_that_change_places_are_noticed(world):
    """The right colors and the right shapes, but not together."""
    clips, pixels = world
    index = [k for k, clip in enumerate(clips) if clip.spec.kind == "pair"]
    clips, pixels = [clips[k] for k in index], pixels[index]
    one, other = zip(*(clip.spec.groups for clip in clips), strict=True)
    swapped = [
        replace(clip.spec, groups=(replace(a, shape=b.shape), replace(b, shape=a.shape)))
        for clip, a, b in zip(clips, one, other, strict=True)
    ]
    unlike = torch.tensor([a.shape != b.shape for a, b in zip(one, other, strict=True)])
    checks = check_videos(pixels, [VideoSpec(spec, clip.motion) for spec, clip in zip(swapped, clips, strict=True)])
    assert all(true(checks, claim) for claim in ("count", "color", "shape", "motion"))
    assert (checks["binding"] == 0).tolist() == unlike.tolist()
    assert (checks["all"] == 0).tolist() == unlike.tolist()


def path(motion: Motion, x: float) -> list[tuple[float, float, float]]:
    """Position and radius of a thing around (x, 0.5) in every frame."""
    dx, dy = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.get(motion.direction or "", (0, 0))
    grows = {"growing": 1, "shrinking": -1}.get(motion.size or "", 0)
    times = np.linspace(-0.5, 0.5, FRAMES)
    return [(x + 0.18 * dx * t, 0.5 + 0.18 * dy * t, 0.12 * 1.4 ** (grows * t)) for t in times]


def pair(left: Motion, right: Motion) -> torch.Tensor:
    """A video of a red circle and a blue square with a motion each."""
    gray = Background("gray", "plain", 0.5, 0.0, False, (0.0, 0.0))
    paths = zip(path(left, 0.25), path(right, 0.75), strict=True)
    scenes = [Scene((Thing("red", "circle", *a, 1.0), Thing("blue", "square", *b, 1.0)), gray) for a, b in paths]
    return render(scenes)[None]


@pytest.mark.parametrize("motion", [m for m in MOTIONS if not m.speed and m != Motion()], ids=lambda m: m.caption)
def test_things_that_do_not_move_alike_have_no_common_motion(motion):
    """Neither motions that cancel out in the mean nor one that moves and one that does not."""
    still = parse_video("a red circle and a blue square standing still")
    assert check_videos(pair(motion, motion), [replace(still, motion=motion)])["all"] == 1
    for other in (reverse(motion), Motion()):
        for claimed in {motion, other, Motion()}:
            checks = check_videos(pair(motion, other), [replace(still, motion=claimed)])
            assert checks["motion"] == checks["all"] == 0
            assert checks["dynamic"] == 1
