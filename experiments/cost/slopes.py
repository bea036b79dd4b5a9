r"""The slopes of the look-ahead: how heavy their tails are, and what clipping each sample does to the pathwise terms.

For each step :math:`t` the measurement has the norms of the slopes :math:`\partial c / \partial x_{t-1}` of samples, and the
ratio of signal to noise of the pathwise term of that step,

.. math:: \frac{|E[\hat g_t]|^2}{\mathrm{tr}\,\mathrm{Cov}(\hat g_t)},

for the slopes as they are and clipped at the median of earlier batches. The signal is an unbiased estimate, which can be negative.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.base import Experiment, Figure, Row, Run, Table
from experiments.paper.problems import Images
from experiments.settings import TINY, Setting
from rlr.analysis.accuracy import Sample
from rlr.estimators import LookAhead, SampleClip
from rlr.estimators.control_variate import Predictions
from rlr.estimators.segments import Segment, partition
from rlr.rollout import Rollout
from rlr.toy.rewards import TinyPickScore

STEPS, BATCH, DRAWS = 10, 16, 30
STRIDES: tuple[int | None, ...] = (None, 4)
"""A prediction in one step, and in steps that cover four of the chain."""
QUANTILES = {"median": 0.5, "ninth": 0.9, "most": 1.0}


@dataclass(frozen=True)
class SlopeMeasurement:
    """Pathwise terms of every step, over batches of the same prompts with fresh noises.

    Args:
        problem: The problem.
        stride: The stride of the prediction.
    """

    problem: Images
    stride: int | None

    def rows(self) -> list[Row]:
        """Returns a row for each step."""
        problem, clip = self.problem.problem, SampleClip()
        found: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {}
        for seed in self.problem.seeds:
            rollout = problem.rollout(seed)
            for segment, one in self._terms(rollout, clip):
                found.setdefault(segment.start, []).append(one)
        return [{"step": float(t), **statistics(found[t])} for t in sorted(found)]

    def _terms(self, rollout: Rollout, clip: SampleClip) -> Iterator[tuple[Segment, tuple[Tensor, Tensor, Tensor]]]:
        """Yields for each step the norms of the slopes, and the gradients with slopes as they are and clipped."""
        segments = partition(rollout.chain.steps, 0, 1)
        predictions = Predictions(LookAhead(stride=self.stride, start_value=False), rollout, segments)
        for segment in reversed(segments):
            slope = predictions.slope(segment.stop)
            mean = rollout.replay(*segment, first=predictions.evaluate(segment.start)).mean
            raw, clipped = (
                self._gradient(mean, weights, retain_graph=weights is slope)
                for weights in (slope, clip(segment.stop, slope))
            )
            yield segment, (slope.flatten(1).norm(dim=1), raw, clipped)

    def _gradient(self, mean: Tensor, weights: Tensor, retain_graph: bool) -> Tensor:
        trained = list(self.problem.problem.chain.model.trainable.values())
        loss = (weights * mean).flatten(1).sum(1).mean()
        parts = torch.autograd.grad(loss, trained, retain_graph=retain_graph, allow_unused=True)
        return torch.cat(
            [(torch.zeros_like(w) if g is None else g).flatten() for w, g in zip(trained, parts, strict=True)]
        )


def statistics(draws: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Row:
    """Returns the quantiles of the norms, and signal over noise of both kinds of gradients."""
    norms, raw, clipped = (torch.stack([draw[k] for draw in draws]).double() for k in range(3))
    quantiles: Row = {name: norms.flatten().quantile(share).item() for name, share in QUANTILES.items()}
    return {**quantiles, "raw": signal_to_noise(raw), "clipped": signal_to_noise(clipped)}


def signal_to_noise(draws: Tensor) -> float:
    r"""Returns :math:`|E[\hat g]|^2 / \mathrm{tr}\,\mathrm{Cov}(\hat g)` of draws with shape :math:`(n, d)`."""
    sample = Sample(draws)
    return (sample.square / sample.trace).item()


class Slopes(Experiment):
    """Norms of the look-ahead's slopes and signal over noise of its pathwise terms, by step."""

    name = "slopes"
    title = "The tails of the look-ahead's slopes"
    note = (
        f"The built-in model before training, {STEPS} steps of DDIM, TinyPickScore, {DRAWS} batches of {BATCH} samples. Norms are "
        "those of the slopes of single samples. Signal over noise is the square of the mean of the pathwise term of a step over "
        "its variance; a value below 0 means that this number of batches does not distinguish the mean from zero."
    )

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        """Returns the runs; the seeds have no effect, because the draws have their own."""
        if setting.gpu:
            raise ValueError(f"slopes are measured for the setting {TINY.name} alone")
        problem = Images(TinyPickScore.__name__, TinyPickScore, STEPS, BATCH, DRAWS, 0, setting.runs)
        return [
            Run({"stride": stride or "one step"}, f"{problem.settings} of the slopes, stride {stride}", measure.rows)
            for stride in STRIDES
            for measure in [SlopeMeasurement(problem, stride)]
        ]

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        head = ("step", "median norm", "nine in ten below", "largest", "signal / noise", "the same, clipped")
        return [
            Table(f"stride {stride}", head, [_line(row) for row in rows if row["stride"] == stride])
            for stride in dict.fromkeys(row["stride"] for row in rows)
        ]


def _line(row: Row) -> tuple[str, ...]:
    numbers = [f"{float(row[name]):.3g}" for name in QUANTILES]
    return f"{float(row['step']):g}", *numbers, f"{float(row['raw']):.4f}", f"{float(row['clipped']):.4f}"
