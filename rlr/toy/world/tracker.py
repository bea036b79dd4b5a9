"""The exact check of clips: what each frame shows, found as in a still, and how the things move from frame to frame.

Each thing is followed through the frames. Straight lines through its positions and through the logarithms of its areas
say whether it moves, grows or shrinks, or stands still; a clip has the motion that all of its things have.
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
from rlr.toy.world.motion import Clip, Motion

PICTURED = ("count", "colour", "shape", "binding", "background")
"""Claims about a picture, checked in every frame: they are true of a clip where they are true of most of its frames."""
KINETIC = ("motion", "direction", "speed")
"""Claims about the motion: its kind, and ``direction`` and ``speed`` where the caption names one."""
CLAIMS = (*PICTURED, *KINETIC, "all")
"""What is checked; ``all`` that no claim fails."""

MOVED = 0.08
"""Displacement from the first frame to the last, in sides of the picture, from which things move."""
FAST = 0.26
"""Displacement from which they move quickly."""
GROWN = 0.4
"""Change of the logarithm of the area from which they grow or shrink."""
SEEN = 5
"""In how many frames there must be anything at all."""


@dataclass(frozen=True)
class Track:
    """The motion of a thing: displacement ``dx``, ``dy`` in sides, ``growth`` of the logarithm of the area."""

    dx: float
    dy: float
    growth: float

    @property
    def distance(self) -> float:
        """The larger of the two displacements."""
        return max(abs(self.dx), abs(self.dy))

    @property
    def motion(self) -> Motion:
        """The motion's kind and direction, with a speed where it moves."""
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
    """The motion of every thing in each of the clips (B, F, 3, H, W) in [0, 1]; of clips that show next to nothing none."""
    return _follow(detect(pixels.flatten(0, 1)), pixels.shape[1])


def _follow(frames: Sequence[list[Found]], length: int) -> list[list[Track]]:
    return [_fit(frames[i : i + length]) for i in range(0, len(frames), length)]


def _fit(frames: Sequence[list[Found]]) -> list[Track]:
    counts = Counter(len(things) for things in frames if things)
    if counts.total() < min(SEEN, len(frames)):
        return []
    # a frame in which things flicker, merge or fall apart says nothing of their motion
    usual = max(counts, key=lambda count: (counts[count], count))
    times = [k for k, things in enumerate(frames) if len(things) == usual]
    rows = np.array([_matched(frames[k], frames[times[0]]) for k in times])
    if len(times) == 1:
        return [Track(0.0, 0.0, 0.0)] * usual
    slopes = np.polyfit(times, rows.reshape(len(times), -1), 1)[0] * (len(frames) - 1)
    return [Track(*map(float, slope)) for slope in slopes.reshape(usual, 3)]


def _matched(things: Sequence[Found], first: Sequence[Found]) -> list[tuple[float, float, float]]:
    """Position and logarithm of the area of each thing, in the order of the like things of another frame."""
    # things that move alike stay in place with respect to their middle
    here, there = (np.array([(t.x, t.y) for t in some]) for some in (things, first))
    here, there = here - here.mean(0), there - there.mean(0)
    repainted = np.array([[t.colour != other.colour for t in things] for other in first])
    _, order = linear_sum_assignment(((there[:, None] - here[None]) ** 2).sum(2) + repainted)
    return [(things[k].x, things[k].y, math.log(things[k].area)) for k in order]


def check_clips(pixels: Tensor, clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Checks every clip against its caption.

    Args:
        pixels: Clips in [0, 1], (B, F, 3, H, W).
        clips: What each should show, B of them.

    Returns:
        For each of :data:`CLAIMS` a tensor (B,) of 1 (true), 0 (false) or NaN (the caption makes no such claim); and
        ``dynamic``, 1 where anything moves, grows or shrinks, whatever the caption says.
    """
    length, pictures = pixels.shape[1], pixels.flatten(0, 1)
    things = detect(pictures)
    stills = judge(pictures, things, [clip.spec for clip in clips for _ in range(length)])
    out = {name: _mostly(stills[name].unflatten(0, (-1, length))) for name in PICTURED}
    tracks = _follow(things, length)
    moves = [_judge(found, clip.motion) for found, clip in zip(tracks, clips, strict=True)]
    out |= {name: torch.tensor([move[name] for move in moves]) for name in KINETIC}
    out["all"] = torch.stack(list(out.values())).nan_to_num(1.0).amin(0)
    out["dynamic"] = torch.tensor([float(any(track.dynamic for track in found)) for found in tracks])
    return out


def _mostly(claims: Tensor) -> Tensor:
    """Whether a claim (B, F) is true in more than half of the frames; NaN where it is not made."""
    return torch.where(claims.isnan().all(1), torch.nan, (claims.mean(1) > 0.5).float())


def _judge(tracks: Sequence[Track], motion: Motion) -> dict[str, float]:
    found = [track.motion for track in tracks]
    same = bool(found) and all((m.direction, m.size) == (motion.direction, motion.size) for m in found)
    return {
        "motion": float(same),
        "direction": float(same) if motion.direction else math.nan,
        "speed": float(same and all(m.speed == motion.speed for m in found)) if motion.speed else math.nan,
    }
