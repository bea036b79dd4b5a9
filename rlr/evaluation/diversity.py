"""How far apart samples of one prompt lie, and how far samples lie from a set of other images."""

import torch
from torch import Tensor

from rlr.evaluation.features import Colors, Features, describe
from rlr.evaluation.metrics import Metric
from rlr.evaluation.samples import SampleBatch
from rlr.evaluation.statistics import Comparison


class Diversity(Metric):
    r"""The mean distance between two samples of one prompt; 0 where all samples of a prompt are the same.

    .. math:: \frac{1}{S (S - 1)} \sum_{a \neq b} \| f(x_a) - f(x_b) \|

    A model that answers each prompt with one image may have any reward and any exact check, so neither shows collapse.

    Args:
        features: The features :math:`f`, by default :class:`~rlr.evaluation.features.Colors`.
        floor: The share of the base model's diversity below which to warn, in [0, 1].
    """

    label = "diversity"
    per_sample = False
    least_samples = 2

    def __init__(self, features: Features | None = None, floor: float = 0.5) -> None:
        if not 0 <= floor <= 1:
            raise ValueError(
                f"Diversity: expected floor in [0, 1], a share of the base model's diversity, found {floor}"
            )
        self.features = features or Colors()
        self.floor = floor

    def measure(self, batch: SampleBatch) -> Tensor:
        return describe(self.features, batch.pixels)

    def reduce(self, values: Tensor) -> Tensor:
        if values.ndim < 3:  # no sample is finite
            return values.new_full((len(values), 1), torch.nan)
        return spread(values)[:, None]

    def warning(self, value: Comparison) -> str | None:
        if not value.aligned < self.floor * value.base:
            return None
        return (
            f"has fallen to {value.aligned:.3g} from the base model's {value.base:.3g}, below the floor of {self.floor:g} "
            "times it; look at the samples, and stop earlier or lower the learning rate"
        )


def diversity(pixels: Tensor, features: Features | None = None) -> Tensor:
    r"""Returns the mean distance of the features of two samples of one prompt.

    Args:
        pixels: Samples in [0, 1], :math:`S \geq 2` of each prompt, with shape :math:`(N, S, 3, H, W)`, or
            :math:`(N, S, F, 3, H, W)` for videos.
        features: The features, by default :class:`~rlr.evaluation.features.Colors`.

    Returns:
        One number per prompt, with shape :math:`(N)`; 0 if all its samples are the same.

    Raises:
        ValueError: If there is only one sample per prompt.
    """
    return spread(describe(features or Colors(), pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2]))


def spread(features: Tensor) -> Tensor:
    r"""Returns the mean distance of two of :math:`S` vectors, with shape :math:`(N)` for shape :math:`(N, S, D)`.

    Raises:
        ValueError: If :math:`S = 1`.
    """
    count = features.shape[1]
    if count < 2:
        raise ValueError("diversity compares samples of one prompt, and there is one only; set samples=2 or more")
    a, b = torch.triu_indices(count, count, 1)
    return (features[:, a] - features[:, b]).norm(dim=-1).mean(1)
