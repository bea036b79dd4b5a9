"""The exact check of clips: what each frame shows, found as in a still, and how the things move from frame to frame.

The motion of a clip is read from a straight line through the mean position of its things, and one through the logarithm
of their mean area: which of the two changes enough says whether they move, grow or shrink, or stand still.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlr.world.checker import Found, check, detect
from rlr.world.motion import Clip, Motion

CLAIMS = ("count", "colour", "shape", "background", "motion", "direction", "speed", "all")
"""What is checked: of stills in most frames; ``motion`` its kind, ``direction`` where the caption names one, ``all``."""

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
    """A motion as it was found: displacement ``dx``, ``dy`` in sides, ``growth`` of the logarithm of the area."""

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
    def _direction(self) -> str:
        if abs(self.dx) >= abs(self.dy):
            return "right" if self.dx > 0 else "left"
        return "down" if self.dy > 0 else "up"


def track(pixels: Tensor) -> list[Track | None]:
    """The motion in each of the clips (B, F, 3, H, W) in [0, 1]; ``None`` of one that shows next to nothing."""
    frames = detect(pixels.flatten(0, 1))
    length = pixels.shape[1]
    return [_fit(frames[i : i + length]) for i in range(0, len(frames), length)]


def _fit(frames: Sequence[list[Found]]) -> Track | None:
    seen = [k for k, things in enumerate(frames) if things]
    if len(seen) < min(SEEN, len(frames)):
        return None
    rows = [_middle(frames[k]) for k in seen]
    # least squares: a thing that flickers in one frame moves the line little
    slopes = np.polyfit(seen, np.array(rows), 1)[0] * (len(frames) - 1)
    return Track(*map(float, slopes))


def _middle(things: list[Found]) -> tuple[float, float, float]:
    x, y, area = (float(np.mean([getattr(thing, name) for thing in things])) for name in ("x", "y", "area"))
    return x, y, math.log(area)


def check_clips(pixels: Tensor, clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Checks every clip against its caption.

    Args:
        pixels: Clips in [0, 1], (B, F, 3, H, W).
        clips: What each should show, B of them.

    Returns:
        For each of :data:`CLAIMS` a tensor (B,) of 1 (true), 0 (false) or NaN (the caption makes no such claim).
    """
    length = pixels.shape[1]
    stills = check(pixels.flatten(0, 1), [clip.spec for clip in clips for _ in range(length)])
    most = {
        name: _mostly(stills[name].unflatten(0, (-1, length))) for name in ("count", "colour", "shape", "background")
    }
    moves = [_judge(found, clip.motion) for found, clip in zip(track(pixels), clips, strict=True)]
    out = most | {name: torch.tensor([move[name] for move in moves]) for name in ("motion", "direction", "speed")}
    out["all"] = torch.stack(list(out.values())).nan_to_num(1.0).amin(0)
    return out


def _mostly(claims: Tensor) -> Tensor:
    """Whether a claim (B, F) is true in more than half of the frames; NaN where it is not made."""
    return torch.where(claims.isnan().all(1), torch.nan, (claims.mean(1) > 0.5).float())


def _judge(found: Track | None, motion: Motion) -> dict[str, float]:
    read = found.motion if found else None
    same = read is not None and (read.direction, read.size) == (motion.direction, motion.size)
    return {
        "motion": float(same),
        "direction": float(same) if motion.direction else math.nan,
        "speed": float(same and read is not None and read.speed == motion.speed) if motion.speed else math.nan,
    }
