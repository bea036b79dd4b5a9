r"""Diversity: how far apart samples of one prompt lie.

A model that answers each prompt with one picture may have any reward and any exact check, so neither shows collapse.
"""

import torch
from torch import Tensor

from rlr.evaluation.features import Colours, Features, described


class Diversity:
    r"""The mean distance between two samples of one prompt, and when to worry about it.

    .. math:: \frac{1}{S (S - 1)} \sum_{a \neq b} \| f(x_a) - f(x_b) \|

    Args:
        features: The features :math:`f`, by default :class:`~rlr.evaluation.features.Colours`.
        floor: The share of the base model's diversity below which to warn, in [0, 1].
    """

    label = "diversity"

    def __init__(self, features: Features | None = None, floor: float = 0.5) -> None:
        if not 0 <= floor <= 1:
            raise ValueError(
                f"Diversity's floor is a share of the base model's diversity in [0, 1], and {floor} is not"
            )
        self.features = features or Colours()
        self.floor = floor


def diversity(pixels: Tensor, features: Features | None = None) -> Tensor:
    r"""Returns the mean distance of the features of two samples of one prompt.

    Args:
        pixels: Samples in [0, 1], :math:`S \geq 2` of each prompt, with shape :math:`(N, S, 3, H, W)`, or
            :math:`(N, S, F, 3, H, W)` for clips.
        features: The features, by default :class:`~rlr.evaluation.features.Colours`.

    Returns:
        One number a prompt, with shape :math:`(N)`; 0 if all its samples are the same.

    Raises:
        ValueError: If there is one sample a prompt only.
    """
    return spread(described(features or Colours(), pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2]))


def spread(features: Tensor) -> Tensor:
    r"""Returns the mean distance of two of :math:`S` vectors, with shape :math:`(N)` for shape :math:`(N, S, D)`.

    Raises:
        ValueError: If :math:`S = 1`.
    """
    count = features.shape[1]
    if count < 2:
        raise ValueError("diversity compares samples of one prompt, and there is one only; take samples=2 or more")
    a, b = torch.triu_indices(count, count, 1)
    return (features[:, a] - features[:, b]).norm(dim=-1).mean(1)
