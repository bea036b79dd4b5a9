"""The exact check of videos: the content of each frame, detected as in an image, and the motion of the things.

Each thing is tracked through the frames. Linear fits of its positions and of the logarithms of its areas determine whether it
moves, grows or shrinks, or stands still. A video has a motion if all of its things have this motion.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rlr.toy.world.checker import Found, detect, judge
from rlr.toy.world.motion import Motion, VideoSpec

PICTURED = ("count", "color", "shape", "binding", "background")
"""Claims about an image, checked in every frame: they are true of a video if they are true of most of its frames."""
KINETIC = ("motion", "direction", "speed")
"""Claims about the motion: its kind, and ``direction`` and ``speed`` where the caption names one."""
CLAIMS = (*PICTURED, *KINETIC, "all")
"""The claims; ``all`` is true if no claim fails."""

CHUNK = 32
"""How many videos are checked at once."""

MOVED = 0.08
"""The smallest displacement from the first frame to the last, in sides of the image, of a moving thing."""
FAST = 0.26
"""The smallest displacement of a thing that moves quickly."""
GROWN = 0.4
"""The smallest change of the logarithm of the area of a thing that grows or shrinks."""
SEEN = 5
"""The smallest number of frames in which a thing must be detected."""


@dataclass(frozen=True)
class Track:
    """The motion of a thing: displacement ``dx``, ``dy`` in sides, and ``growth``, the change of the logarithm of the area."""

    dx: float
    dy: float
    growth: float

    @property
    def distance(self) -> float:
        """The larger of the two displacements."""
        return max(abs(self.dx), abs(self.dy))

    @property
    def motion(self) -> Motion:
        """The kind of the motion, with direction and speed if the thing moves."""
        if self.distance >= MOVED:
            speed = "quickly" if self.distance >= FAST else "slowly"
            return Motion(self._direction, speed)
        if abs(self.growth) >= GROWN:
            return Motion(size="growing" if self.growth > 0 else "shrinking")
        return Motion()

    @property
    def dynamic(self) -> bool:
        """Whether the thing moves, grows or shrinks."""
        return self.motion != Motion()

    @property
    def _direction(self) -> str:
        if abs(self.dx) >= abs(self.dy):
            return "right" if self.dx > 0 else "left"
        return "down" if self.dy > 0 else "up"


def track(pixels: Tensor) -> list[list[Track]]:
    """Returns the motion of every thing in videos (B, F, 3, H, W) in [0, 1]; nothing for videos with things in too few frames."""
    return _follow(detect(pixels.flatten(0, 1)), pixels.shape[1])


def _follow(frames: Sequence[list[Found]], length: int) -> list[list[Track]]:
    return [_fit(frames[i : i + length]) for i in range(0, len(frames), length)]


def _fit(frames: Sequence[list[Found]]) -> list[Track]:
    counts = Counter(len(things) for things in frames if things)
    if counts.total() < min(SEEN, len(frames)):
        return []
    # a frame in which things flicker, merge or split contains no information about the motion
    usual = max(counts, key=lambda count: (counts[count], count))
    times = [k for k, things in enumerate(frames) if len(things) == usual]
    rows = np.array([_matched(frames[k], frames[times[0]]) for k in times])
    if len(times) == 1:
        return [Track(0.0, 0.0, 0.0)] * usual
    slopes = np.polyfit(times, rows.reshape(len(times), -1), 1)[0] * (len(frames) - 1)
    return [Track(*map(float, slope)) for slope in slopes.reshape(usual, 3)]


def _matched(things: Sequence[Found], first: Sequence[Found]) -> list[tuple[float, float, float]]:
    """Returns position and logarithm of the area of each thing, in the order of the matching things of another frame."""
    # things with the same motion do not move relative to their mean position
    here, there = (np.array([(t.x, t.y) for t in some]) for some in (things, first))
    here, there = here - here.mean(0), there - there.mean(0)
    repainted = np.array([[t.color != other.color for t in things] for other in first])
    _, order = linear_sum_assignment(((there[:, None] - here[None]) ** 2).sum(2) + repainted)
    return [(things[k].x, things[k].y, math.log(things[k].area)) for k in order]


def check_videos(pixels: Tensor, clips: Sequence[VideoSpec]) -> dict[str, Tensor]:
    """Checks every video against its caption.

    Args:
        pixels: Videos in [0, 1], (B, F, 3, H, W).
        clips: The B captions, parsed.

    Returns:
        For each of :data:`CLAIMS` a tensor (B,) of 1 (true), 0 (false) or NaN (the caption has no such claim); and
        ``dynamic``, 1 where anything moves, grows or shrinks, for any caption.
    """
    # the check holds several copies of what it reads
    parts = [_checked(pixels[i : i + CHUNK], clips[i : i + CHUNK]) for i in range(0, len(clips), CHUNK)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _checked(pixels: Tensor, clips: Sequence[VideoSpec]) -> dict[str, Tensor]:
    length, images = pixels.shape[1], pixels.flatten(0, 1)
    things = detect(images)
    stills = judge(images, things, [clip.spec for clip in clips for _ in range(length)])
    out = {name: _mostly(stills[name].unflatten(0, (-1, length))) for name in PICTURED}
    tracks = _follow(things, length)
    moves = [_judge(found, clip.motion) for found, clip in zip(tracks, clips, strict=True)]
    out |= {name: torch.tensor([move[name] for move in moves]) for name in KINETIC}
    out["all"] = torch.stack(list(out.values())).nan_to_num(1.0).amin(0)
    out["dynamic"] = torch.tensor([float(any(track.dynamic for track in found)) for found in tracks])
    return out


def _mostly(claims: Tensor) -> Tensor:
    """Returns whether a claim (B, F) is true in more than half of the frames; NaN without a claim."""
    return torch.where(claims.isnan().all(1), torch.nan, (claims.mean(1) > 0.5).float())


def _judge(tracks: Sequence[Track], motion: Motion) -> dict[str, float]:
    found = [track.motion for track in tracks]
    same = bool(found) and all((m.direction, m.size) == (motion.direction, motion.size) for m in found)
    return {
        "motion": float(same),
        "direction": float(same) if motion.direction else math.nan,
        "speed": float(same and all(m.speed == motion.speed for m in found)) if motion.speed else math.nan,
    }
