r"""Diversity: how far apart samples of one prompt lie.

A model that answers each prompt with one picture may have any reward and any exact check, so neither shows collapse.
The features are colours alone, without a learned network that the alignment could have fooled.
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

GRIDS = (1, 2, 4, 8)
"""Sides of the grids of average colours that describe a picture."""


def layout(pixels: Tensor) -> Tensor:
    r"""Returns the colour layout of pictures: their average colours on grids of 1, 2, 4 and 8 cells a side.

    Each grid is divided by its side, so that :math:`\|f(a) - f(b)\|^2` is the sum over the grids of the mean squared
    difference of colours.

    Args:
        pixels: Pictures in [0, 1], with shape :math:`(B, 3, H, W)`.

    Returns:
        The features, with shape :math:`(B, 255)`.
    """
    return torch.cat([adaptive_avg_pool2d(pixels, side).flatten(1) / side for side in GRIDS], 1)


def diversity(pixels: Tensor) -> Tensor:
    r"""Returns the mean distance of the colour layouts of two samples of one prompt.

    .. math:: \frac{1}{S (S - 1)} \sum_{a \neq b} \| f(x_a) - f(x_b) \|

    Args:
        pixels: Samples in [0, 1], with shape :math:`(N, S, 3, H, W)`, :math:`S \geq 2` of each prompt.

    Returns:
        One number a prompt, with shape :math:`(N)`; 0 if all its samples are the same.

    Raises:
        ValueError: If there is one sample a prompt only.
    """
    count = pixels.shape[1]
    if count < 2:
        raise ValueError("diversity compares samples of one prompt, and there is one only; take samples=2 or more")
    features = layout(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
    a, b = torch.triu_indices(count, count, 1)
    return (features[:, a] - features[:, b]).norm(dim=-1).mean(1)
