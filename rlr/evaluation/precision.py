"""Precision and recall: how many samples look like real images, and how many real images the samples cover."""

from collections.abc import Mapping

import torch
from torch import Tensor

from rlr.evaluation.features import Features
from rlr.evaluation.reference import ReferenceMetric


class PrecisionRecall(ReferenceMetric):
    r"""Precision and recall of the samples on manifolds of nearest neighbors.

    The manifold of a set of features is the union of balls around them, each with the distance to the :math:`k`-th nearest other
    feature of the set as its radius. Precision is the share of samples in the manifold of the reference images, recall the share of
    reference images in the manifold of the samples. Compare only runs with the same numbers of samples and of images.

    References:
        | Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al., 2019)
        | https://arxiv.org/abs/1904.06991

    Args:
        reference: The folder of the images, with any folders inside it.
        features: The features.
        neighbors: The number :math:`k`.
    """

    label = "precision"

    def __init__(self, reference: str, features: Features, neighbors: int = 3) -> None:
        super().__init__(reference, features)
        if neighbors < 1:
            raise ValueError(f"PrecisionRecall: expected neighbors >= 1, found {neighbors}")
        self.neighbors = neighbors
        self._recall = torch.tensor(torch.nan)

    def compare(self, samples: Tensor, reference: Tensor) -> Tensor:
        self._recall = coverage(reference, samples, self.neighbors)
        return coverage(samples, reference, self.neighbors)

    def parts(self) -> Mapping[str, Tensor]:
        return {"recall": self._recall}


def coverage(points: Tensor, manifold: Tensor, neighbors: int) -> Tensor:
    r"""Returns the share of points in the manifold of a set.

    Args:
        points: The points, with shape :math:`(n, D)`.
        manifold: The set, with shape :math:`(m, D)`, :math:`m > k`.
        neighbors: The number :math:`k`.

    Raises:
        ValueError: If the set is too small.
    """
    if len(manifold) <= neighbors:
        raise ValueError(
            f"precision and recall: expected more than {neighbors} samples and reference images, found {len(manifold)}"
        )
    # the nearest feature to each one is itself
    radii = torch.cdist(manifold, manifold).kthvalue(neighbors + 1, dim=1).values
    return (torch.cdist(points, manifold) <= radii).any(1).double().mean()
