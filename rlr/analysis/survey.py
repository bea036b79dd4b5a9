r"""Estimators compared on the same batches: accuracy, cost, and how far the draws determine :math:`g` at all.

In each of :math:`n` rounds every estimator gives one estimate, all from the same batch, and the reference one from each of
:data:`REFERENCE` batches, of which that batch is the first. An estimator keeps its state (baselines, running coefficients) from
round to round, as in a training whose weights do not move.

Time is short where the draws of the reference have to be many. So an optional estimator that needs more than :data:`HOPELESS` times
the time of the reference for the same variance takes part in the first :data:`LEAST` rounds alone.

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
from rlr.analysis.recommendation import Choice, Spread
from rlr.analysis.sketch import sketched
from rlr.analysis.structure import unbiased
from rlr.estimators.base import Estimator

REFERENCE = 4
"""The draws of the reference in a round."""

LEAST = 4
"""The fewest rounds that say anything."""

HOPELESS = 10
"""The time for the same variance, relative to that of the reference, from which on an optional estimator is drawn no further."""

DETERMINED = 0.5
r"""The largest relative standard error of :math:`\|g\|^2` with which draws determine :math:`g`."""


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

    @property
    def price(self) -> float:
        """The median square of the norm times the seconds: the time for the same variance, where the variance is most of it."""
        return self.values.norm(dim=1).median().item() ** 2 * self.cost.seconds

    @property
    def spread(self) -> Spread:
        r"""The variance :math:`\mathrm{tr}\,\mathrm{Cov}(\hat g)` of an estimate."""
        sample = Sample(self.values.double())
        squares = sample.centred.square().sum(1) * len(self.values) / (len(self.values) - 1)
        return Spread(squares.mean().item(), (squares.std() / len(squares) ** 0.5).item())


@dataclass(frozen=True)
class Row:
    r"""What was measured of one estimator.

    Args:
        name: Its name.
        cost: What one estimate costs.
        accuracy: Its accuracy; None where the reference is not known.
        direction: Its error after the best scaling; None where that is not known, or where its mean is not seen to point along g.
        tail: The largest norm of its estimates, in medians.
        spread: Their variance, whether the reference is known or not.
        draws: The number of its estimates.
    """

    name: str
    cost: Cost
    accuracy: Accuracy | None
    direction: Direction | None
    tail: float
    spread: Spread
    draws: int

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
        rounds: The number :math:`n` of rounds: of the estimates of each estimator that is drawn to the end.
        reference_draws: The number of draws of the reference.
        normalized: Whether each draw was divided by its norm.
        error: The relative standard error of :math:`\|g\|^2`; infinite where its estimate is not positive.
        failures: Why estimators are missing, by name.
        unbiased: The names of the estimators that are unbiased by construction (:func:`~rlr.analysis.structure.unbiased`).
    """

    rows: Sequence[Row]
    reference: str
    rounds: int
    reference_draws: int
    normalized: bool
    error: float
    failures: Mapping[str, str]
    unbiased: Sequence[str]

    @property
    def choices(self) -> list[Choice]:
        """The estimators whose directions are known."""
        return [row.choice for row in self.rows if row.choice is not None]

    @property
    def known(self) -> bool:
        r"""Whether the draws determine :math:`g`: the square of its norm to a half."""
        return self.error <= DETERMINED


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
        late = {yardstick.late_name: yardstick.late} if yardstick.late else {}
        self.drawn: dict[str, Estimator] = late | self.estimators
        self.device = estimand.chain.model.device
        self.failures: dict[str, str] = {}
        self._values: dict[str, list[Tensor]] = {}
        self._seconds: dict[str, list[float]] = {}
        self._peaks: dict[str, int] = {}

    @property
    def compared(self) -> list[str]:
        """The names of the estimators that are compared."""
        return [*self.yardstick.compared, *self.estimators]

    def unbiased(self, name: str) -> bool:
        """Returns whether a compared estimator is unbiased by construction."""
        return unbiased({**self.yardstick.estimators, **self.estimators}[name], self.estimand.chain)

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
            self.drawn.pop(name, None)

    def drop(self, optional: Container[str]) -> None:
        """Draws those of the optional estimators no further that need much more time than the reference for the same variance."""
        most = HOPELESS * self.draws(self.yardstick.name).price
        for name in self.estimators:
            if name in optional and self.draws(name).price > most:
                del self.drawn[name]

    def round(self, number: int) -> None:
        """Draws an estimate of each estimator, and those of the reference."""
        # batch 0 measured the memory, and an estimator that keeps coefficients has already fitted them to it
        first = 1 + REFERENCE * number
        for name, estimator in self.drawn.items():
            self._draw(name, estimator, first)
        for k in range(REFERENCE):
            self._draw(self.yardstick.name, self.yardstick.full, first + k)

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
    return _compare(recorder, _rounds(recorder, rounds, seconds - (clock(recorder.device) - start), optional, progress))


def _rounds(recorder: Recorder, rounds: int, seconds: float, optional: Container[str], progress: Progress) -> int:
    """Makes rounds, of which a further one, as long as the last, has to end in time, and returns their number."""
    start = last = clock(recorder.device)
    for done in range(1, rounds + 1):
        recorder.round(done - 1)
        progress(f"round {done} of {rounds}")
        if done == LEAST:
            recorder.drop(optional)
        before, last = last, clock(recorder.device)
        if done >= LEAST and (last - start) + (last - before) > seconds:
            break
    return done


def _compare(recorder: Recorder, rounds: int) -> Survey:
    yardstick = recorder.yardstick
    full, early, normalized = _reference(recorder)
    rows = []
    for name in recorder.compared:
        draws = recorder.draws(name)
        numbers = _numbers_of_reference(rounds) if name == yardstick.name else _numbers_of_others(len(draws.values))
        rows.append(_row(name, draws, PairedReference(full, early, *numbers), normalized))
    exact = [name for name in recorder.compared if recorder.unbiased(name)]
    error, count = relative_error(full), REFERENCE * rounds
    return Survey(rows, yardstick.name, rounds, count, normalized, error, recorder.failures, exact)


def _numbers_of_others(count: int) -> tuple[Sequence[int], Sequence[int]]:
    """Returns which draws of :math:`g` and of :math:`g_{>h}` are on the batches of an estimator's draws."""
    return range(0, REFERENCE * count, REFERENCE), range(count)


def _numbers_of_reference(rounds: int) -> tuple[Sequence[int], Sequence[int | None]]:
    """Returns the same for the draws of the reference itself, of which the first of each round has one of :math:`g_{>h}`."""
    count = REFERENCE * rounds
    return range(count), [None if k % REFERENCE else k // REFERENCE for k in range(count)]


def _reference(recorder: Recorder) -> tuple[Sample, Sample, bool]:
    r"""Returns draws of :math:`g` and :math:`g_{>h}`, and whether they are normalized, because they determine no mean otherwise."""
    yardstick = recorder.yardstick
    full = recorder.draws(yardstick.name)
    early = replace(full, values=full.values[::REFERENCE])
    if yardstick.late:
        early = replace(early, values=early.values - recorder.draws(yardstick.late_name).values)
    if determined(raw := Sample(full.values.double())):
        return raw, Sample(early.values.double()), False
    return Sample(full.normalized.double()), Sample(early.normalized.double()), True


def determined(sample: Sample) -> bool:
    """Returns whether draws determine the square of the norm of their mean."""
    return relative_error(sample) <= DETERMINED


def _row(name: str, draws: Draws, reference: PairedReference, normalized: bool) -> Row:
    count = len(draws.values)
    if not determined(reference.full):
        return Row(name, draws.cost, None, None, draws.tail, draws.spread, count)
    values = draws.normalized if normalized else draws.values
    found = accuracy(values, reference)
    if not determined(reference.deep):
        found = replace(found, deep_cosine=float("nan"), deep_cosine_error=float("nan"))
    known = direction(values, reference, found, scaled=not normalized)
    return Row(name, draws.cost, found, known, draws.tail, draws.spread, count)
