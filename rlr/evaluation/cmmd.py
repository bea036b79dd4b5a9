"""CMMD: how far samples as a whole lie from real images, without an assumption on their distribution."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlr.evaluation.features import Features
from rlr.evaluation.reference import ReferenceMetric

SIGMA, SCALE = 10.0, 1000.0
"""The bandwidth of the kernel, and the factor on the distance, of the published code."""


class CMMD(ReferenceMetric):
    r"""The squared maximum mean discrepancy of CLIP embeddings, times 1000.

    .. math:: \frac1{n^2} \sum_{i,j} k(x_i, x_j) + \frac1{m^2} \sum_{i,j} k(y_i, y_j) - \frac2{nm} \sum_{i,j} k(x_i, y_j),
        \qquad k(a, b) = e^{-\|a - b\|^2 / 2 \sigma^2}

    with :math:`\sigma = 10` and embeddings of length 1. Published numbers are of the image encoder of CLIP ViT-L/14 at 336 pixels.

    References:
        | Rethinking FID: Towards a Better Evaluation Metric for Image Generation (Jayasumana et al., 2024)
        | https://arxiv.org/abs/2401.09603

    Args:
        reference: The folder of the images, with any folders inside it.
        features: The embeddings, such as :class:`~rlr.evaluation.features.CLIPFeatures`.
    """

    label = "CMMD"
    higher_is_better = False

    def __init__(self, reference: str, features: Features) -> None:
        super().__init__(reference, features)

    def compare(self, samples: Tensor, reference: Tensor) -> Tensor:
        return cmmd(samples, reference)


def cmmd(x: Tensor, y: Tensor) -> Tensor:
    r"""Returns the distance of two sets of embeddings, with shapes :math:`(n, D)` and :math:`(m, D)`."""
    x, y = normalize(x.double(), dim=1), normalize(y.double(), dim=1)
    return SCALE * (_kernel(x, x) + _kernel(y, y) - 2 * _kernel(x, y))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """Returns the mean of the kernel over all pairs."""
    # of unit vectors, and exactly 1 for a vector with itself
    distances = (2 - 2 * x @ y.T).clamp(min=0)
    return torch.exp(-distances / (2 * SIGMA**2)).mean()
