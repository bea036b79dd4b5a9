"""The exact check: compares an image with the claims of its caption by rules alone.

A thing is a connected region of one saturated color; backgrounds are gray. Its color is the nearest of the palette,
its shape the template with the largest overlap at the region's center of mass and area. Nothing here is learned, so a
model cannot raise the score by exploiting a network.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from rlr.toy.world.caption import COLORS, SHAPES, TEXTURES, TONES, Spec
from rlr.toy.world.render import CELLS, PALETTE, masks

CLAIMS = ("count", "color", "shape", "binding", "place", "background", "all")
"""The claims; ``place`` is the position or the relation, ``all`` is true if no claim fails."""

SATURATION = 0.28
MINIMAL_AREA = 0.015
MINIMAL_COVER = 0.65
CENTER = 0.12
APART = 0.15
TONE_BOUNDS = (0.73, 0.30)
PATTERN_CONTRAST = 0.03
PATTERN_FIT = 0.45


@dataclass(frozen=True)
class Found:
    """A thing found in an image; ``cover`` is its overlap with the template of its shape, in [0, 1]."""

    color: str
    shape: str
    x: float
    y: float
    area: float
    cover: float


def check(pixels: Tensor, specs: Sequence[Spec]) -> dict[str, Tensor]:
    """Checks every image against its spec.

    Args:
        pixels: Images in [0, 1], (B, 3, H, H).
        specs: The B specs of the images.

    Returns:
        For each of :data:`CLAIMS` a tensor (B,) of 1 (true), 0 (false) or NaN (the spec has no such claim).
    """
    return judge(pixels, detect(pixels), specs)


def judge(pixels: Tensor, things: Sequence[list[Found]], specs: Sequence[Spec]) -> dict[str, Tensor]:
    """Returns :func:`check` of images with the things that :func:`detect` has found."""
    tones, textures = read_backgrounds(pixels)
    lines = [_judge(t, spec, tone, tex) for t, spec, tone, tex in zip(things, specs, tones, textures, strict=True)]
    return {claim: torch.tensor([line[claim] for line in lines], dtype=torch.float32) for claim in CLAIMS}


def accuracy(checks: dict[str, Tensor]) -> dict[str, float]:
    """Returns the share of true claims, each over the images whose caption has the claim."""
    return {claim: float(values.nanmean()) for claim, values in checks.items()}


def _judge(things: list[Found], spec: Spec, tone: str, texture: str) -> dict[str, float]:
    wanted = [(group.color, group.shape) for group in spec.groups for _ in range(group.count)]
    shapes = [(t.color, t.shape if t.cover > MINIMAL_COVER else "other") for t in things]
    line = {
        "count": float(len(things) == len(wanted)),
        "color": float(Counter(c for c, _ in shapes) == Counter(c for c, _ in wanted)),
        "shape": float(Counter(s for _, s in shapes) == Counter(s for _, s in wanted)),
        "binding": float(Counter(shapes) == Counter(wanted)),
        "place": _place(things, spec),
        "background": math.nan,
    }
    if spec.tone:
        line["background"] = float(tone == spec.tone and spec.texture in (None, texture))
    line["all"] = min(value for value in line.values() if not math.isnan(value))
    return line


def _place(things: list[Found], spec: Spec) -> float:
    if spec.position:
        return float(len(things) == 1 and position(things[0]) == spec.position)
    if spec.relation:
        pair = [[t for t in things if t.color == group.color] for group in spec.groups]
        return float(all(len(found) == 1 for found in pair) and relation(pair[0][0], pair[1][0]) == spec.relation)
    return math.nan


def position(thing: Found) -> str:
    """Returns the position of a thing; the larger offset from the center determines it."""
    dx, dy = thing.x - 0.5, thing.y - 0.5
    if max(abs(dx), abs(dy)) < CENTER:
        return "in the center"
    if abs(dx) > abs(dy):
        return "on the left" if dx < 0 else "on the right"
    return "at the top" if dy < 0 else "at the bottom"


def relation(one: Found, other: Found) -> str | None:
    """Returns the relation of ``one`` to ``other``; ``None`` if they are too close."""
    dx, dy = one.x - other.x, one.y - other.y
    if max(abs(dx), abs(dy)) < APART:
        return None
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def detect(pixels: Tensor) -> list[list[Found]]:
    """Returns the things in every image of (B, 3, H, H), from left to right."""
    pixels = pixels.detach().float().cpu()
    chroma = pixels.amax(1) - pixels.amin(1)
    regions, owner, colors = _regions(pixels, chroma)
    out: list[list[Found]] = [[] for _ in pixels]
    if not len(owner):
        return out
    solid = _solidity(chroma[owner], regions)
    x, y, area = _moments(solid)
    covers = torch.stack([_cover(solid, shape, x, y, area) for shape in SHAPES], 1)
    best, which = covers.max(1)
    for k, b in enumerate(owner.tolist()):
        found = Found(COLORS[colors[k]], SHAPES[which[k]], float(x[k]), float(y[k]), float(area[k]), float(best[k]))
        out[b].append(found)
    return [sorted(things, key=lambda thing: thing.x) for things in out]


def _regions(pixels: Tensor, chroma: Tensor) -> tuple[Tensor, Tensor, np.ndarray]:
    """Returns connected regions of one color: their pixels (K, H, H), the image of each (K,) and the color of each (K,)."""
    side = pixels.shape[-1]
    hue = (pixels - pixels.amin(1, keepdim=True)) / chroma.clamp(min=1e-3)[:, None]
    palette = PALETTE - PALETTE.amin(1, keepdim=True)
    palette = palette / palette.amax(1, keepdim=True)
    nearest = (hue[:, None] - palette[None, :, :, None, None]).square().sum(2).argmin(1)
    planes = torch.stack([(nearest == c) & (chroma > SATURATION) for c in range(len(COLORS))], 1).numpy()
    within = np.zeros((3, 3, 3, 3), bool)
    within[1, 1] = ndimage.generate_binary_structure(2, 1)
    labels, _ = ndimage.label(planes, within)
    kept = np.flatnonzero(np.bincount(labels.ravel()) >= MINIMAL_AREA * side * side)
    places = ndimage.find_objects(labels)
    where = [places[label - 1] for label in kept if label]
    owner, colors = (np.array([w[axis].start for w in where], np.int64) for axis in (0, 1))
    regions = labels[owner, colors] == kept[kept > 0][:, None, None]
    return torch.from_numpy(regions), torch.from_numpy(owner), colors


def _solidity(chroma: Tensor, regions: Tensor) -> Tensor:
    """Returns the share of each pixel that the region's thing covers: its chroma relative to that of the region's inside."""
    inside = torch.stack([c[r].quantile(0.7) for c, r in zip(chroma, regions, strict=True)])
    near = torch.nn.functional.max_pool2d(regions[:, None].float(), 3, 1, 1)[:, 0]
    return (chroma / inside[:, None, None]).clamp(0, 1) * near


def _moments(solid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    side = solid.shape[-1]
    grid = (torch.arange(side) + 0.5) / side
    total = solid.sum((1, 2))
    x = (solid.sum(1) * grid).sum(1) / total
    y = (solid.sum(2) * grid).sum(1) / total
    return x, y, total / side**2


def _cover(solid: Tensor, shape: str, x: Tensor, y: Tensor, area: Tensor) -> Tensor:
    """Returns the intersection over union of each region with a template of the same center of mass and area, (K,)."""
    offset_x, offset_y, unit_area = _UNIT[shape]
    radius = (area / unit_area).sqrt()
    template = masks(shape, x - offset_x * radius, y - offset_y * radius, radius, solid.shape[-1])
    return torch.minimum(solid, template).sum((1, 2)) / torch.maximum(solid, template).sum((1, 2))


def _unit(shape: str) -> tuple[float, float, float]:
    half, quarter = torch.tensor([0.5]), torch.tensor([0.25])
    x, y, area = (float(v) for v in _moments(masks(shape, half, half, quarter, 256)))
    return (x - 0.5) / 0.25, (y - 0.5) / 0.25, area / 0.25**2


_UNIT = {shape: _unit(shape) for shape in SHAPES}


def read_backgrounds(pixels: Tensor) -> tuple[list[str], list[str]]:
    """Returns the tone and the texture of the background of every image of (B, 3, H, H)."""
    pixels = pixels.detach().float().cpu()
    chroma = pixels.amax(1) - pixels.amin(1)
    # a pixel beside a thing is mixed with it
    free = 1 - torch.nn.functional.max_pool2d((chroma > 0.2).float()[:, None], 3, 1, 1).flatten(1)
    gray = pixels.mean(1).flatten(1)
    area = free.sum(1).clamp(min=1)
    mean = (gray * free).sum(1) / area
    rest = (gray - mean[:, None]) * free
    contrast = (rest.square().sum(1) / area).sqrt()
    striped, checkered = (_fit(rest, free, pattern) for pattern in _patterns(pixels.shape[-1]))
    tones = [TONES[sum(value < bound for bound in TONE_BOUNDS)] for value in mean.tolist()]
    flat = (contrast < PATTERN_CONTRAST) | (torch.maximum(striped, checkered) < PATTERN_FIT)
    texture = torch.where(flat, 0, torch.where(striped > checkered, 1, 2))
    return tones, [TEXTURES[k] for k in texture.tolist()]


def _fit(rest: Tensor, free: Tensor, patterns: Tensor) -> Tensor:
    """Returns the largest share of variance that one of the patterns explains, (B,)."""
    area = free.sum(1, keepdim=True).clamp(min=1)
    level = free @ patterns.T / area
    power = free @ (patterns**2).T - area * level**2
    explained = (rest @ patterns.T) ** 2 / power.clamp(min=1e-3)
    return explained.amax(1) / rest.square().sum(1).clamp(min=1e-6)


def _patterns(side: int) -> tuple[Tensor, Tensor]:
    """Returns all stripes and all checks up to sign, as rows of +-1 of length side * side."""
    cell = (torch.arange(side) + 0.5) * CELLS / side
    shifts = torch.arange(8)[:, None] / 4
    waves = (cell + shifts) // 1 % 2 * 2 - 1
    flat = torch.ones(8, side)
    stripes = torch.cat([_outer(flat[:1], waves[:4]), _outer(waves[:4], flat[:1])])
    return stripes, _outer(waves[:4], waves[:4])


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    return (rows[:, None, :, None] * columns[None, :, None, :]).flatten(0, 1).flatten(1)
