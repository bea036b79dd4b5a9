"""Moving scenes: a video is one scene in each of its frames, in which all things have the same motion.

Displacements are fractions of the image's side from the first frame to the last.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rlr.toy.world.motion import Motion, VideoSpec
from rlr.toy.world.render import SIDE, render
from rlr.toy.world.scene import Scene, backdrop, put

FRAMES = 8
RADII = {1: (0.18, 0.26), 2: (0.15, 0.185), 3: (0.125, 0.14)}
"""The range of the radius by the number of things: smaller than in still images, to leave room for the motion."""
DISTANCES = {None: (0.15, 0.38), "slowly": (0.15, 0.21), "quickly": (0.31, 0.38)}
"""The range of the distance by the speed that the caption names."""
GROWTH = (1.35, 1.5)
"""The range of the largest radius of a growing or shrinking thing divided by its smallest."""
_HEADING = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_LAYOUTS = 48


def animate(clip: VideoSpec, rng: np.random.Generator, frames: int = FRAMES) -> list[Scene]:
    """Returns random scenes, one for each frame, that satisfy every claim of the caption."""
    shift = np.array(_HEADING.get(clip.motion.direction or "", (0, 0))) * rng.uniform(*DISTANCES[clip.motion.speed])
    factors = _factors(clip.motion, rng, frames)
    still, background = put(clip.spec, _spots(clip, shift, rng), rng), backdrop(clip.spec, rng)
    scenes = []
    for progress, factor in zip(np.linspace(0, 1, frames), factors, strict=True):
        dx, dy = map(float, progress * shift)
        moved = (replace(t, x=t.x + dx, y=t.y + dy, radius=t.radius * factor) for t in still)
        scenes.append(Scene(tuple(moved), background))
    return scenes


def _factors(motion: Motion, rng: np.random.Generator, frames: int) -> list[float]:
    """Returns the radius in each frame divided by the largest."""
    if motion.size is None:
        return [1.0] * frames
    rising = np.geomspace(1 / rng.uniform(*GROWTH), 1, frames).tolist()
    return rising if motion.size == "growing" else rising[::-1]


def _spots(clip: VideoSpec, shift: np.ndarray, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Returns the first of many random layouts in which the things do not touch and stay in the image while they move."""
    low, high = np.minimum(shift, 0), np.maximum(shift, 0)
    while True:
        radii = rng.uniform(*RADII[clip.spec.total], (_LAYOUTS, clip.spec.total))
        margin = radii * 1.05 + 0.01
        x, y = (rng.uniform(margin - low[i], 1 - margin - high[i]) for i in (0, 1))
        good = np.flatnonzero(_apart(x, y, radii))
        if len(good):
            return np.stack([x, y, radii], -1)[good[0]].tolist()


def _apart(x: np.ndarray, y: np.ndarray, radii: np.ndarray) -> np.ndarray:
    i, j = np.triu_indices(x.shape[1], 1)
    gap = np.hypot(x[:, i] - x[:, j], y[:, i] - y[:, j]) - 1.12 * (radii[:, i] + radii[:, j])
    return (gap > 0.04).all(1)


def draw_videos(clips: Sequence[VideoSpec], seed: int, side: int = SIDE) -> Tensor:
    """Returns a rendered random video for each caption; the k-th depends on ``seed``, ``k`` and its caption only.

    Returns:
        Pixels of 0 to 255, uint8, (N, F, 3, side, side).
    """
    rendered = []
    for k, clip in enumerate(clips):
        frames = render(animate(clip, np.random.default_rng((seed, k, 4))), side)
        rendered.append((frames * 255).round().to(torch.uint8))
    return torch.stack(rendered)
