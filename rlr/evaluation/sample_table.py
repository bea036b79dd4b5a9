"""Samples of the base and of the aligned model with their scores, a row each sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from rlr.evaluation.results import Measurement
from rlr.evaluation.samples import SampleSet


@dataclass(frozen=True)
class SampleRow:
    """A prompt, the samples of the models on the same noise, and their scores.

    Args:
        prompt: The prompt.
        samples: Pixels in [0, 1], those of the base model first, if there is one.
        scores: Of each measurement the scores of the models in the same order, and their difference, if there are two.
    """

    prompt: str
    samples: Sequence[Tensor]
    scores: Sequence[float]


@dataclass(frozen=True)
class SampleTable:
    """Samples with their prompts and scores.

    Args:
        models: The names of the models, such as ``base`` and ``aligned``.
        measurements: The labels of the measurements.
        rows: The rows.
        fps: Frames per second of videos; None for images.
    """

    models: Sequence[str]
    measurements: Sequence[str]
    rows: Sequence[SampleRow]
    fps: float | None = None

    @property
    def head(self) -> list[str]:
        """The names of the columns."""
        columns = [*self.models, *(["difference"] if len(self.models) > 1 else [])]
        return ["prompt", *self.models, *(f"{label} {column}" for label in self.measurements for column in columns)]


def sample_table(
    samples: SampleSet,
    measurements: Sequence[Measurement],
    now: Mapping[int, Tensor],
    base: Mapping[int, Tensor] | None = None,
    fps: float | None = None,
) -> SampleTable:
    r"""Returns the table of those samples whose pixels are known.

    Args:
        samples: The set of samples.
        measurements: What was measured; those without a score for each sample are left out.
        now: The pixels of the aligned model by row :math:`i S + k`.
        base: Those of the base model.
        fps: Frames per second of videos; None for images.
    """
    size = (len(samples.prompts), samples.samples)
    scored = [m for m in measurements if m.per_sample and m.scores.shape == size]
    models = [now] if base is None else [base, now]
    known = sorted(set(now).intersection(*models))
    rows = [
        SampleRow(
            samples.prompts[row // samples.samples],
            [pixels[row] for pixels in models],
            [score for m in scored for score in _scores(m, row, len(models))],
        )
        for row in known
    ]
    return SampleTable(("base", "aligned")[-len(models) :], [m.label for m in scored], rows, fps)


def _scores(measurement: Measurement, row: int, models: int) -> list[float]:
    """Returns the scores of a sample; NaN where the base model was not measured."""
    at = divmod(row, measurement.scores.shape[1])
    now = measurement.scores[at].item()
    if models == 1:
        return [now]
    base = float("nan") if measurement.base is None else measurement.base[at].item()
    return [base, now, now - base]
