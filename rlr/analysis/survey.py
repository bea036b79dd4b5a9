r"""Estimators compared on the same batches: accuracy, cost, and how far the draws determine :math:`g` at all.

In each of :math:`n` rounds every estimator gives one estimate, all from the same batch, and the reference one from each of
:data:`REFERENCE` batches, of which that batch is the first. An estimator keeps its state (baselines, running coefficients) from
round to round, as in a training whose weights do not move.

Where the draws of the reference do not distinguish its mean from zero, as with rewards whose gradients have heavy tails, every draw
is divided by its norm (:attr:`Survey.normalized`): :math:`g` is then the mean direction of the reference, and what is measured is
the step of an optimizer that clips the gradient to a norm below nearly all of them.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean

import torch
from torch import Tensor

from rlr.analysis.accuracy import Accuracy, PairedReference, Sample, accuracy, relative_error
from rlr.analysis.candidates import Yardstick
from rlr.analysis.direction import Direction, direction
from rlr.analysis.measure import Cost, clock, spent
from rlr.analysis.memory import peak_memory
from rlr.analysis.problem import Estimand
from rlr.analysis.recommendation import Choice
from rlr.analysis.sketch import sketched
from rlr.estimators.base import Estimator

REFERENCE = 4
"""The draws of the reference in a round."""

LEAST = 4
"""The fewest rounds that say anything."""


@dataclass(frozen=True)
class Draws:
    """Estimates of one estimator, with what they cost.

    Args:
        values: The estimates, with shape :math:`(n, d)`, on the CPU; sketches of them where :math:`d` is large
            (:mod:`rlr.analysis.sketch`).
        cost: The mean seconds of an estimate, and the peak memory of the first.
    """

    values: Tensor
    cost: Cost

    @property
    def normalized(self) -> Tensor:
        """The estimates divided by their norms."""
        return self.values / self.values.norm(dim=1, keepdim=True).clamp_min(torch.finfo(self.values.dtype).tiny)

    @property
    def tail(self) -> float:
        """The largest norm, in medians."""
        norms = self.values.norm(dim=1)
        return (norms.max() / norms.median()).item()


@dataclass(frozen=True)
class Row:
    r"""What was measured of one estimator.

    Args:
        name: Its name.
        cost: What one estimate costs.
        accuracy: Its accuracy; None where the reference is not known.
        direction: Its error after the best scaling; None where that is not known, or where its mean is not seen to point along g.
        tail: The largest norm of its estimates, in medians.
    """

    name: str
    cost: Cost
    accuracy: Accuracy | None
    direction: Direction | None
    tail: float

    @property
    def choice(self) -> Choice | None:
        """The estimator as one to choose from; None where its direction is not known."""
        return Choice(self.name, self.direction, self.cost.seconds, self.cost.peak_bytes) if self.direction else None


@dataclass(frozen=True)
class Survey:
    r"""A comparison of estimators.

    Args:
        rows: The estimators.
        reference: The name of the estimator whose mean is :math:`g`.
        rounds: The number :math:`n` of estimates of each estimator.
        reference_draws: The number of draws of the reference.
        normalized: Whether each draw was divided by its norm.
        error: The relative standard error of :math:`\|g\|^2`; infinite where the draws do not distinguish it from zero.
        failures: Why estimators are missing, by name.
    """

    rows: Sequence[Row]
    reference: str
    rounds: int
    reference_draws: int
    normalized: bool
    error: float
    failures: Mapping[str, str]

    @property
    def choices(self) -> list[Choice]:
        """The estimators whose directions are known."""
        return [row.choice for row in self.rows if row.choice is not None]

    @property
    def known(self) -> bool:
        """Whether the draws determine :math:`g`."""
        return self.error < float("inf")


Progress = Callable[[str], None]
"""Is called with what has been done."""


def silent(text: str) -> None:
    """Says nothing."""


class Recorder:
    """Collects the draws of several estimators round by round.

    Args:
        estimand: What is estimated.
        estimators: The estimators by name.
        yardstick: The reference.
    """

    def __init__(self, estimand: Estimand, estimators: Mapping[str, Estimator], yardstick: Yardstick) -> None:
        self.estimand, self.yardstick = estimand, yardstick
        self.estimators = {name: e for name, e in estimators.items() if name not in yardstick.estimators}
        self.device = estimand.chain.model.device
        self.failures: dict[str, str] = {}
        self._values: dict[str, list[Tensor]] = {}
        self._seconds: dict[str, list[float]] = {}
        self._peaks: dict[str, int] = {}

    @property
    def compared(self) -> list[str]:
        """The names of the estimators that are compared."""
        return [*self.yardstick.compared, *self.estimators]

    def probe(self, name: str, estimator: Estimator, optional: bool = False) -> None:
        """Measures the memory of an estimate; an ``optional`` estimator that does not fit the chain, batch or device is recorded.

        Raises:
            ValueError: If an estimator that is not optional does not fit the chain or the batch.
        """
        try:
            self._peaks[name] = peak_memory(self.estimand, estimator)
        except (torch.OutOfMemoryError, ValueError) as error:
            if not optional:
                raise
            self.failures[name] = str(error) if isinstance(error, ValueError) else "out of memory"
            self.estimators.pop(name, None)

    def round(self, number: int) -> None:
        """Draws an estimate of each estimator, and those of the reference."""
        # batch 0 measured the memory, and an estimator that keeps coefficients has already fitted them to it
        first = 1 + REFERENCE * number
        for name, estimator in self.estimators.items():
            self._draw(name, estimator, first)
        for name, estimator in self.yardstick.estimators.items():
            for k in range(REFERENCE):
                self._draw(name, estimator, first + k)

    def _draw(self, name: str, estimator: Estimator, batch: int) -> None:
        value, seconds = spent(lambda: self.estimand.estimate(estimator, batch), self.device)
        self._values.setdefault(name, []).append(sketched(value))
        self._seconds.setdefault(name, []).append(seconds)

    def draws(self, name: str) -> Draws:
        """Returns the draws of an estimator."""
        return Draws(torch.stack(self._values[name]), Cost(mean(self._seconds[name]), self._peaks[name]))


def survey(
    estimand: Estimand,
    estimators: Mapping[str, Estimator],
    yardstick: Yardstick,
    rounds: int,
    seconds: float = float("inf"),
    optional: Container[str] = (),
    progress: Progress = silent,
) -> Survey:
    r"""Compares estimators.

    Args:
        estimand: What is estimated.
        estimators: The estimators by name.
        yardstick: The reference, which is compared as well.
        rounds: The largest number :math:`n \geq 4` of rounds.
        seconds: The time, of the CPU where the work is done there, in which a further round has to end once there are 4.
        optional: The names of estimators that are left out where they do not fit the chain, the batch or the device.
        progress: Is called after each step.

    Raises:
        ValueError: If there are fewer than 4 rounds, or another estimator does not fit.
    """
    if rounds < LEAST:
        raise ValueError(f"draws: expected at least {LEAST}, got {rounds}; fewer determine no variance")
    recorder = Recorder(estimand, estimators, yardstick)
    start = clock(recorder.device)
    for name, estimator in {**yardstick.estimators, **recorder.estimators}.items():
        recorder.probe(name, estimator, name in optional)
        progress(f"memory of {name}")
    done, begun = 0, clock(recorder.device)
    while done < rounds:
        now = clock(recorder.device)
        # a further round, as long as those before, has to end in time
        if done >= LEAST and now - start + (now - begun) / done > seconds:
            break
        recorder.round(done)
        done += 1
        progress(f"round {done} of {rounds}")
    return _compare(recorder, done)


def _compare(recorder: Recorder, rounds: int) -> Survey:
    yardstick = recorder.yardstick
    parts = [recorder.draws(name) for name in yardstick.estimators]
    reference, normalized = _reference(parts, range(0, REFERENCE * rounds, REFERENCE))
    rows = []
    for name in recorder.compared:
        # the draws of the reference are paired with themselves
        paired = replace(reference, index=range(REFERENCE * rounds)) if name in yardstick.estimators else reference
        rows.append(_row(name, recorder.draws(name), paired, normalized))
    known = reference.error if determined(reference.full) else float("inf")
    return Survey(rows, yardstick.name, rounds, REFERENCE * rounds, normalized, known, recorder.failures)


def _reference(parts: Sequence[Draws], index: Sequence[int]) -> tuple[PairedReference, bool]:
    """Returns the reference, and whether its draws are normalized, because they determine no mean otherwise."""
    full = parts[0]
    early = replace(full, values=full.values - parts[1].values) if len(parts) > 1 else full
    raw = PairedReference(Sample(full.values.double()), Sample(early.values.double()), index)
    if determined(raw.full):
        return raw, False
    return PairedReference(Sample(full.normalized.double()), Sample(early.normalized.double()), index), True


def determined(sample: Sample) -> bool:
    r"""Returns whether draws determine the square of the norm of their mean to a half."""
    return relative_error(sample) <= 0.5


def _row(name: str, draws: Draws, reference: PairedReference, normalized: bool) -> Row:
    if not determined(reference.full):
        return Row(name, draws.cost, None, None, draws.tail)
    values = draws.normalized if normalized else draws.values
    found = accuracy(values, reference)
    if not determined(reference.deep):
        found = replace(found, deep_cosine=float("nan"), deep_cosine_error=float("nan"))
    return Row(name, draws.cost, found, direction(values, reference, found), draws.tail)
