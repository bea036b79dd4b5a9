"""Renders batches of scenes; signed distance functions give anti-aliased masks."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from rlr.toy.world.caption import COLORS
from rlr.toy.world.scene import Background, Scene

SIDE = 32
CELLS = 8
"""The width of a stripe or a check is ``side / CELLS``."""

PALETTE = torch.tensor(
    [
        (0.86, 0.12, 0.14),
        (1.00, 0.55, 0.05),
        (0.98, 0.88, 0.12),
        (0.12, 0.68, 0.22),
        (0.12, 0.32, 0.90),
        (0.58, 0.16, 0.78),
    ]
)
"""RGB of each of :data:`rlr.toy.world.caption.COLORS`, in [0, 1], (6, 3)."""


def circle(x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to a disk; like all distances here it is negative inside, for a radius of about 1."""
    return torch.hypot(x, y) - 0.98


def square(x: Tensor, y: Tensor) -> Tensor:
    """Signed distance (of the maximum norm) to a square."""
    return torch.maximum(x.abs(), y.abs()) - 0.86


def triangle(x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to a triangle that points up."""
    return torch.maximum(y - 0.78, 0.87 * x.abs() - 0.5 * (y + 0.98))


def cross(x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to an upright cross of two bars."""
    wide = torch.maximum(x.abs() - 1.0, y.abs() - 0.33)
    tall = torch.maximum(x.abs() - 0.33, y.abs() - 1.0)
    return torch.minimum(wide, tall)


def heart(x: Tensor, y: Tensor) -> Tensor:
    """Approximate signed distance to a heart: two round lobes above a wedge whose point is at y = 1."""
    x = x.abs()
    lobe = torch.hypot(x - 0.5, y + 0.38) - 0.54
    # the wedge: below the lobes, left of the line from a lobe's flank (0.99, -0.16) to the point (0, 1)
    wedge = torch.maximum(0.761 * x + 0.649 * (y - 1.0), -0.38 - y)
    return torch.minimum(lobe, wedge)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "cross": cross,
    "heart": heart,
}


def masks(shape: str, x: Tensor, y: Tensor, radius: Tensor, side: int = SIDE, oversample: int = 2) -> Tensor:
    """Coverage of every pixel by one shape.

    Args:
        shape: One of :data:`rlr.toy.world.caption.SHAPES`.
        x, y, radius: Centers and radii as fractions of the side, (N,).
        side: Pixels along a side.
        oversample: Samples per pixel along each axis.

    Returns:
        Coverage in [0, 1], (N, side, side).
    """
    fine = side * oversample
    grid = (torch.arange(fine, dtype=x.dtype) + 0.5) / fine
    u = (grid[None, None, :] - x[:, None, None]) / radius[:, None, None]
    v = (grid[None, :, None] - y[:, None, None]) / radius[:, None, None]
    distance = DISTANCES[shape](*torch.broadcast_tensors(u, v)) * (radius * fine)[:, None, None]
    return avg_pool2d((0.5 - distance).clamp(0, 1), oversample)


def render(scenes: Sequence[Scene], side: int = SIDE) -> Tensor:
    """Renders the scenes; the same scenes give the same pixels.

    Returns:
        Pixels in [0, 1], (N, 3, side, side).
    """
    pixels = backgrounds([scene.background for scene in scenes], side)[:, None].repeat(1, 3, 1, 1)
    owner = [i for i, scene in enumerate(scenes) for _ in scene.things]
    things = [thing for scene in scenes for thing in scene.things]
    for shape in DISTANCES:
        chosen = [k for k, thing in enumerate(things) if thing.shape == shape]
        if not chosen:
            continue
        x, y, radius, shade = torch.tensor(
            [(things[k].x, things[k].y, things[k].radius, things[k].shade) for k in chosen], dtype=torch.float32
        ).T
        color = PALETTE[[COLORS.index(things[k].color) for k in chosen]] * shade[:, None]
        index = torch.tensor([owner[k] for k in chosen])
        mask = masks(shape, x, y, radius, side)[:, None]
        # things do not overlap, so blending each with the background is a sum and the order does not matter
        pixels.index_add_(0, index, mask * (color[:, :, None, None] - pixels[index]))
    return pixels.clamp_(0, 1)


def backgrounds(specs: Sequence[Background], side: int = SIDE) -> Tensor:
    """Returns gray images of the backgrounds, (N, side, side)."""
    cell = (torch.arange(side) + 0.5) * CELLS / side
    shift = torch.tensor([spec.shift for spec in specs], dtype=torch.float32) * 2
    across = ((cell + shift[:, :1]) // 1 % 2)[:, None, :]
    down = ((cell + shift[:, 1:]) // 1 % 2)[:, :, None]
    vertical = torch.tensor([spec.vertical for spec in specs])[:, None, None]
    striped = torch.where(vertical, across, down)
    checked = torch.tensor([spec.texture == "checkered" for spec in specs])[:, None, None]
    pattern = torch.where(checked, (across + down) % 2, striped.expand(-1, side, side))
    level, contrast = torch.tensor([(spec.level, spec.contrast) for spec in specs], dtype=torch.float32).T
    return (level[:, None, None] + contrast[:, None, None] * pattern).clamp(0, 1)
