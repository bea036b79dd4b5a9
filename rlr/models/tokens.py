r"""Images as the tokens of a transformer, and the positions of the tokens."""

import torch
from torch import Tensor

from rlr.models.packing import PATCH, unpack


def to_tokens(x: Tensor) -> Tensor:
    r"""Returns the tokens of an image row by row: shape :math:`(B, C, h, w)` becomes :math:`(B, h w, C)`.

    Those of a video are in order of its frames: shape :math:`(B, C, f, h, w)` becomes :math:`(B, f h w, C)`.
    """
    return x.flatten(2).transpose(1, 2)


def from_tokens(tokens: Tensor, *sides: int) -> Tensor:
    r"""Undoes :func:`to_tokens` for an image of :math:`h` rows and :math:`w` columns of tokens, or a video of :math:`f` images."""
    return tokens.transpose(1, 2).unflatten(2, sides)


def unpatchify(x: Tensor) -> Tensor:
    r"""Returns the pixels of 2 × 2 patches that are channels: shape :math:`(B, 4 C, h, w)` becomes :math:`(B, C, 2 h, 2 w)`.

    Channel :math:`4 c + 2 i + j` is channel :math:`c` in row :math:`i` and column :math:`j` of the patch.
    """
    return unpack(to_tokens(x), PATCH * x.shape[-2], PATCH * x.shape[-1])


def positions(sides: tuple[int, ...], device: torch.device) -> Tensor:
    r"""Returns the coordinates of all points of a grid in the order of its rows.

    Args:
        sides: The numbers :math:`n_1, \dots, n_k` of points along each axis.
        device: The device.

    Returns:
        Coordinates with shape :math:`(n_1 \cdots n_k, k)`.
    """
    axes = torch.meshgrid(*(torch.arange(side, device=device) for side in sides), indexing="ij")
    return torch.stack(axes, -1).flatten(0, -2)
