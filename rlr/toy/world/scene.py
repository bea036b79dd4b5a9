"""The geometry of an image: a :class:`Scene` is drawn at random so that it satisfies a spec.

Coordinates are fractions of the image's side, x to the right and y down.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlr.toy.world.caption import TEXTURES, TONES, Spec

RADII = {1: (0.20, 0.33), 2: (0.17, 0.225), 3: (0.15, 0.19), 4: (0.145, 0.175)}
"""The range of the radius by the number of things: as large as possible without overlap."""

_LAYOUTS = 24
_AIM = {
    "on the left": (0.26, 0.5),
    "on the right": (0.74, 0.5),
    "at the top": (0.5, 0.26),
    "at the bottom": (0.5, 0.74),
    "in the center": (0.5, 0.5),
}
_TONE_RANGE = {"white": (0.90, 1.0), "gray": (0.42, 0.60), "black": (0.0, 0.12)}


@dataclass(frozen=True)
class Thing:
    """One shape: center (``x``, ``y``), ``radius``, and ``shade``, the brightness that multiplies its color."""

    color: str
    shape: str
    x: float
    y: float
    radius: float
    shade: float


@dataclass(frozen=True)
class Background:
    """A tone and a pattern.

    ``level`` is the gray value, ``contrast`` the value that the pattern adds, ``vertical`` the direction of stripes and
    ``shift`` the pattern's phase in cells of two, in [0, 1).
    """

    tone: str
    texture: str
    level: float
    contrast: float
    vertical: bool
    shift: tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """The things and the background of one image."""

    things: tuple[Thing, ...]
    background: Background


def place(spec: Spec, rng: np.random.Generator) -> Scene:
    """Returns a random scene that satisfies every claim of ``spec``."""
    spots = _spots(spec, rng)
    things = put(spec, spots, rng)
    return Scene(things, backdrop(spec, rng))


def put(spec: Spec, spots: Sequence[tuple[float, float, float]], rng: np.random.Generator) -> tuple[Thing, ...]:
    """Returns the things of a spec at given centers and radii, each in a random shade of its color."""
    kinds = [(group.color, group.shape) for group in spec.groups for _ in range(group.count)]
    shades = rng.uniform(0.9, 1.05, len(kinds))
    return tuple(Thing(*kind, *spot, float(shade)) for kind, spot, shade in zip(kinds, spots, shades, strict=True))


def backdrop(spec: Spec, rng: np.random.Generator) -> Background:
    """Returns a random background that satisfies the spec."""
    tone = spec.tone or TONES[rng.integers(len(TONES))]
    texture = spec.texture or TEXTURES[rng.integers(len(TEXTURES))]
    sign = {"white": -1.0, "gray": rng.choice((-0.8, 0.8)), "black": 1.0}[tone]
    contrast = 0.0 if texture == "plain" else float(sign * rng.uniform(0.18, 0.26))
    # eighths: at 32 pixels a cell is 4 pixels wide, so the edges of the pattern lie between pixels
    shift = (float(rng.integers(8)) / 8, float(rng.integers(8)) / 8)
    return Background(tone, texture, float(rng.uniform(*_TONE_RANGE[tone])), contrast, bool(rng.integers(2)), shift)


def _spots(spec: Spec, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Returns the first of many random layouts in which the things do not overlap and satisfy the spec."""
    while True:
        radii = rng.uniform(*RADII[spec.total], (_LAYOUTS, spec.total))
        if spec.position:
            radii = radii.clip(max=0.24)
        margin = radii * 1.05 + 0.01
        x, y = rng.uniform(margin, 1 - margin), rng.uniform(margin, 1 - margin)
        if spec.position:
            aim = rng.uniform(-0.05, 0.05, (2, _LAYOUTS, 1)) + np.reshape(_AIM[spec.position], (2, 1, 1))
            x, y = aim.clip(margin, 1 - margin)
        good = np.flatnonzero(_apart(x, y, radii) & _related(spec.relation, x, y))
        if len(good):
            return np.stack([x, y, radii], -1)[good[0]].tolist()


def _apart(x: np.ndarray, y: np.ndarray, radii: np.ndarray) -> np.ndarray:
    i, j = np.triu_indices(x.shape[1], 1)
    gap = np.hypot(x[:, i] - x[:, j], y[:, i] - y[:, j]) - 1.12 * (radii[:, i] + radii[:, j])
    return (gap > 0.05).all(1)


def _related(relation: str | None, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if relation is None:
        return np.ones(len(x), bool)
    dx, dy = x[:, 0] - x[:, 1], y[:, 0] - y[:, 1]
    along = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[relation]
    across = dy if relation in ("left of", "right of") else dx
    return (along > 0.34) & (along > np.abs(across) + 0.12)
