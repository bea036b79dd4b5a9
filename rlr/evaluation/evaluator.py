"""Samples × metrics: the one place where a model is evaluated."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from rlr.chain import Chain
from rlr.distributed import gather_objects, rank, world_size
from rlr.evaluation.base_scores import BaseScores
from rlr.evaluation.metrics import Metric
from rlr.evaluation.results import Measurement
from rlr.evaluation.samples import SampleBatch, SampleSet
from rlr.io.video import Video


@dataclass(frozen=True)
class Evaluated:
    r"""What an evaluation of one model has found.

    Args:
        values: By label, values with shape :math:`(N, S)`, :math:`(N, 1)` or :math:`()`.
        pixels: The samples to show, in [0, 1] on the CPU, by their rows.
    """

    values: dict[str, Tensor]
    pixels: dict[int, Tensor] = field(default_factory=dict)


class View(NamedTuple):
    """What a display draws from.

    Args:
        samples: The set of samples.
        update: After how many updates the model is shown.
        metric: The metric whose values stand below the samples, or None.
        now: What was found of the model.
        base: What was found of the base model, or None.
        fps: Frames per second of videos; None for images.
    """

    samples: SampleSet
    update: int
    metric: Metric | None
    now: Evaluated
    base: Evaluated | None
    fps: float | None


class Drawing(NamedTuple):
    """An image, with a video where samples are videos, and the samples by themselves.

    Args:
        image: The image.
        video: The video.
        samples: Pixels in [0, 1] by the name of their file without a suffix.
        facts: What is known of them, as plain data, for ``samples.json``.
    """

    image: Image.Image
    video: Video | None = None
    samples: Mapping[str, Tensor] = {}
    facts: Mapping[str, object] = {}


class Display(ABC):
    """Shows samples of an evaluation."""

    folder: str | None
    """Where drawings are written, by default ``samples`` in the root folder of the trainer."""

    @abstractmethod
    def rows(self, samples: SampleSet) -> Sequence[int]:
        """Returns the rows of the samples to show."""

    @abstractmethod
    def draw(self, view: View) -> Drawing:
        """Draws the samples."""


class Evaluator:
    """Makes each sample of a set once, and passes it to all metrics.

    With several processes, each makes the samples of its own prompts, and all find the same.

    Args:
        samples: The samples.
        metrics: The metrics, each with its own label.
        shown: The rows of samples to keep for displays.
        progress: Called when a pass begins with the number of its samples on this rank; returns a function that is called with the
            number of those made so far.
    """

    def __init__(
        self,
        samples: SampleSet,
        metrics: Sequence[Metric],
        shown: Collection[int] = (),
        progress: Callable[[int], Callable[[int], None]] = lambda total: lambda made: None,
    ) -> None:
        self.samples, self.metrics, self.progress = samples, list(metrics), progress
        self._shown = frozenset(shown)
        self._pixels: dict[int, Tensor] = {}
        self._made: list[int] = []

    def check(self, video: bool) -> None:
        """Checks what can be checked before anything is sampled.

        Raises:
            ValueError: If a metric cannot measure these samples.
        """
        for metric in self.metrics:
            metric.check(self.samples, video)

    def evaluate(self, chain: Chain) -> Evaluated:
        """Samples and measures a model."""
        self._begin()
        return self._finish(chain)

    def base(self, chain: Chain, folder: Path) -> Evaluated:
        """Samples and measures a base model, or finds in a file of the folder what an earlier run has measured.

        The file is valid for the same prompts, noises, metrics and model. Where the identity of a metric is not known, nothing
        is kept.
        """
        self._begin()
        file = self._file(folder)
        if file is None:
            return self._finish(chain)
        probe = self._probe(chain)
        # the ranks must agree on whether to sample
        found = gather_objects(file.find(probe) if rank() == 0 else None)[0]
        if found is not None:
            return Evaluated(found, self._show(chain))
        evaluated = self._finish(chain)
        if rank() == 0:
            file.keep(probe, evaluated.values)
        return evaluated

    def measurements(self, now: Evaluated, base: Evaluated | None = None) -> list[Measurement]:
        """Returns the values beside those of the base model, in the order of the metrics."""
        known = {metric.label: metric for metric in self.metrics}
        before = {} if base is None else base.values
        return [
            _measurement(label, known.get(label), values, before.get(label)) for label, values in now.values.items()
        ]

    def _begin(self) -> None:
        self._pixels, self._made = {}, []
        self._state = self.progress(len(self.samples.rows(rank(), world_size())))
        for metric in self.metrics:
            metric.begin(self.samples)

    def _finish(self, chain: Chain) -> Evaluated:
        """Makes the samples of this rank that are not made yet, and computes the metrics."""
        rows = self.samples.rows(rank(), world_size())
        missing = [row for row in rows if row not in set(self._made)]
        self._take(self.samples.batches(chain, missing))
        values: dict[str, Tensor] = {}
        for metric in self.metrics:
            values |= {metric.label: metric.compute(), **metric.parts()}
        return Evaluated(values, self._gathered())

    def _show(self, chain: Chain) -> dict[int, Tensor]:
        """Makes the samples of this rank that are shown and not made yet; no metric sees them."""
        mine = [row for row in self.samples.rows(rank(), world_size()) if row in self._shown - self._pixels.keys()]
        for batch in self.samples.batches(chain, mine):
            self._keep(batch)
        return self._gathered()

    def _take(self, batches: Iterable[SampleBatch]) -> None:
        for batch in batches:
            self._made += batch.rows
            self._keep(batch)
            finite = batch.finite()
            if finite.rows:
                for metric in self.metrics:
                    metric.update(finite)
            self._state(len(self._made))

    def _keep(self, batch: SampleBatch) -> None:
        for row, pixels in zip(batch.rows, batch.pixels, strict=True):
            if row in self._shown:
                self._pixels[row] = pixels.detach().float().cpu()

    def _gathered(self) -> dict[int, Tensor]:
        if not self._shown:
            return {}
        return {row: pixels for part in gather_objects(self._pixels) for row, pixels in part.items()}

    def _file(self, folder: Path) -> BaseScores | None:
        try:
            identities = [metric.identity() for metric in self.metrics]
        except LookupError:
            return None
        digest = hashlib.sha256(json.dumps(identities, sort_keys=True).encode()).hexdigest()
        return BaseScores(folder, {**self.samples.key, "metrics": digest})

    def _probe(self, chain: Chain) -> dict[str, list[float]]:
        """Makes and measures the samples of the first prompt, and returns their colors and first values; on rank 0 alone."""
        first = self.samples.first(1)
        batches = list(first.batches(chain, first.rows(rank(), world_size())))
        if rank() > 0:
            return {}
        self._take(batches)
        colors = torch.cat([batch.pixels.double().mean((-1, -2)).flatten() for batch in batches]).tolist()
        return {"colors": colors, **{metric.label: metric.head() for metric in self.metrics}}


def _measurement(label: str, metric: Metric | None, values: Tensor, base: Tensor | None) -> Measurement:
    values, base = (None if v is None else v.reshape(1, 1) if v.ndim == 0 else v for v in (values, base))  # type: ignore[assignment]
    if metric is None:
        return Measurement(label, values, base, per_sample=False)
    return Measurement(label, values, base, dict(metric.scales), metric.higher_is_better, metric.per_sample)
