"""Metrics that compare the samples of a set, as a whole, with a folder of reference images."""

from abc import abstractmethod
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlr.evaluation.features import Features
from rlr.evaluation.metrics import Metric
from rlr.evaluation.samples import SampleBatch, SampleSet
from rlr.io.image_file import image_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class ReferenceMetric(Metric):
    r"""A metric of two sets of features: those of the samples, and those of images in a folder. Videos count as their frames.

    Args:
        reference: The folder of the images, with any folders inside it.
        features: The features :math:`f`.
    """

    per_sample = False

    def __init__(self, reference: str, features: Features) -> None:
        self.reference, self.features = reference, features

    @abstractmethod
    def compare(self, samples: Tensor, reference: Tensor) -> Tensor:
        r"""Returns the value, with shape :math:`()`.

        Args:
            samples: The features of the samples in float64, with shape :math:`(n, D)`.
            reference: The features of the reference images in float64, with shape :math:`(m, D)`.
        """

    def check(self, samples: SampleSet, video: bool) -> None:
        super().check(samples, video)
        if not self.files:
            raise FileNotFoundError(
                f"{self.label}: expected a folder of images ({', '.join(SUFFIXES)}) as reference, found none in "
                f"{Path(self.reference).absolute()}"
            )

    @cached_property
    def files(self) -> list[Path]:
        """The reference images."""
        return sorted(p for p in Path(self.reference).expanduser().rglob("*") if p.suffix.lower() in SUFFIXES)

    @cached_property
    def _reference(self) -> Tensor:
        # one at a time, since they may differ in size
        return torch.cat([self.features(pixels(path)).float().cpu() for path in self.files]).double()

    def measure(self, batch: SampleBatch) -> Tensor:
        if batch.pixels.ndim == 4:
            return self.features(batch.pixels)[:, None]
        return self.features(batch.pixels.flatten(0, 1)).unflatten(0, batch.pixels.shape[:2])

    def reduce(self, values: Tensor) -> Tensor:
        if values.ndim < 4:
            return torch.tensor(torch.nan)
        rows = values.flatten(0, 2).double()
        with torch.inference_mode():
            return self.compare(rows[rows.isfinite().all(1)], self._reference.clone())


def pixels(path: Path) -> Tensor:
    r"""Returns the pixels of an image file in [0, 1], with shape :math:`(1, 3, H, W)`."""
    with image_file(path) as image:
        array = np.asarray(image.convert("RGB"))
    return torch.from_numpy(array.copy()).permute(2, 0, 1)[None].float() / 255
