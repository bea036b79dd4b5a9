r"""Which estimator for a budget: a function of measured errors, seconds and bytes alone.

In :math:`S` seconds an update, an estimator that takes :math:`t` seconds an estimate averages :math:`n = S / t` of them (a larger
batch, or accumulation), and has the error :math:`\beta^2 + v \, t / S` (:mod:`rlr.analysis.direction`). As functions of
:math:`1 / S` these are straight lines, of which the lowest is the best: variance decides where seconds are few, and bias where
they are many.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from statistics import median

from rlr.analysis.direction import ERRORS, Direction

RATIO = 1.25
"""The ratio of two errors up to which the difference does not matter."""


@dataclass(frozen=True)
class Spread:
    r"""The variance of an estimate, in the units of the gradient.

    Args:
        variance: The :math:`\mathrm{tr}\,\mathrm{Cov}(\hat g)`.
        error: Its standard error.
    """

    variance: float
    error: float


@dataclass(frozen=True)
class Measured:
    """An estimator whose direction is not known.

    Args:
        name: Its name.
        spread: Its variance.
        seconds: The seconds of an estimate.
        unbiased: Whether it is unbiased by construction.
    """

    name: str
    spread: Spread
    seconds: float
    unbiased: bool

    @property
    def price(self) -> float:
        """The variance of an update of one second: the seconds of an update whose variance is 1."""
        return self.spread.variance * self.seconds

    def ratio(self, other: "Measured") -> tuple[float, float]:
        """Returns the price relative to that of another estimator, and its standard error."""
        ratio = self.price / other.price
        errors = (m.spread.error / m.spread.variance for m in (self, other))
        return ratio, ratio * hypot(*errors)


@dataclass(frozen=True)
class Choice:
    """An estimator to choose.

    Args:
        name: Its name.
        direction: Its error after the best scaling.
        seconds: The seconds of an estimate.
        peak_bytes: The memory of an estimate.
    """

    name: str
    direction: Direction
    seconds: float
    peak_bytes: int

    def error(self, seconds: float) -> float:
        """Returns the relative squared error of an update of so many seconds."""
        return self.direction.error(seconds / self.seconds)

    def cosine(self, seconds: float) -> float:
        """Returns the cosine of an update of so many seconds with the gradient."""
        return self.direction.cosine(seconds / self.seconds)


@dataclass(frozen=True)
class Range:
    """The seconds an update for which a choice is the best.

    Args:
        choice: The choice.
        low: From so many seconds on.
        high: Up to so many; infinite for the last.
    """

    choice: Choice
    low: float
    high: float


def best(choices: Sequence[Choice], seconds: float, peak_bytes: float = float("inf")) -> Choice | None:
    """Returns the choice with the smallest error among those that fit into the memory; None if none fits.

    Args:
        choices: The choices.
        seconds: The seconds of an update.
        peak_bytes: The memory beyond weights.
    """
    fitting = [choice for choice in choices if choice.peak_bytes <= peak_bytes]
    return min(fitting, key=lambda choice: choice.error(seconds), default=None)


def near(choices: Sequence[Choice], chosen: Choice, seconds: float) -> list[Choice]:
    """Returns other choices whose error at so many seconds the draws do not distinguish from that of the chosen one."""
    return [choice for choice in choices if choice is not chosen and _is_near(choice, chosen, seconds)]


def _is_near(choice: Choice, chosen: Choice, seconds: float) -> bool:
    uncertainty = hypot(choice.direction.uncertainty, chosen.direction.uncertainty)
    return choice.error(seconds) <= max(RATIO, 1 + ERRORS * uncertainty) * chosen.error(seconds)


def by_seconds(choices: Sequence[Choice]) -> list[Range]:
    """Returns the best choice for every number of seconds an update, from few to many: the lower envelope of the lines."""
    # of the lines in x = 1 / S, the flattest is the lowest for few seconds
    here = min(choices, key=lambda c: (_slope(c), c.direction.bias))
    found: list[Range] = []
    low = 0.0
    while True:
        crossings = [(_crossing(here, c), c) for c in choices if c.direction.bias < here.direction.bias]
        if not crossings:
            return [*found, Range(here, low, float("inf"))]
        at = min(seconds for seconds, _ in crossings)
        # where several cross at once, the one with the least bias is the lowest from there on
        following = min((c for seconds, c in crossings if seconds == at), key=lambda c: c.direction.bias)
        found.append(Range(here, low, at))
        here, low = following, at


def _slope(choice: Choice) -> float:
    return choice.direction.variance * choice.seconds


def _crossing(here: Choice, other: Choice) -> float:
    r"""Returns the :math:`S` from which on ``other``, with the smaller bias, has the smaller error."""
    return (_slope(other) - _slope(here)) / (here.direction.bias - other.direction.bias)


def by_memory(choices: Sequence[Choice], seconds: float) -> list[Choice]:
    """Returns the choices that are the best for some limit on the memory, from the smallest need to the largest."""
    found: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.peak_bytes, c.error(seconds))):
        if not found or choice.error(seconds) < found[-1].error(seconds):
            found.append(choice)
    return found


def advice(
    choices: Sequence[Choice], own: str, seconds: float | None = None, peak_bytes: float | None = None
) -> list[str]:
    """Returns which estimator to use, in sentences.

    Args:
        choices: The estimators whose directions are known; at least one.
        own: The name of the estimator that is used so far.
        seconds: The seconds of an update; by default those of the estimator used so far, or the median of all.
        peak_bytes: The memory beyond weights; by default without a limit.
    """
    present = next((choice for choice in choices if choice.name == own), None)
    if seconds is None:
        seconds = present.seconds if present else median(choice.seconds for choice in choices)
    limit = float("inf") if peak_bytes is None else peak_bytes
    fitting = [choice for choice in choices if choice.peak_bytes <= limit]
    if not fitting:
        least = min(choices, key=lambda choice: choice.peak_bytes)
        return [
            f"No estimator fits into {mib(limit)}; the least is {mib(least.peak_bytes)}, for {least.name}. Use smaller batches or "
            "memory.checkpoint_steps."
        ]
    found = [_for_seconds(fitting, seconds, limit), _by_seconds(fitting), _by_memory(choices, seconds)]
    if present:
        found.insert(1, _comparison(present, fitting, seconds))
    return [*found, _of_bias(choices)]


def _for_seconds(choices: Sequence[Choice], seconds: float, limit: float) -> str:
    chosen = min(choices, key=lambda choice: choice.error(seconds))
    within = "" if limit == float("inf") else f" and {mib(limit)}"
    text = (
        f"With {seconds:.3g} s an update{within}: {chosen.name}, {batches(seconds / chosen.seconds)} an update, whose cosine with "
        f"the gradient is then {chosen.cosine(seconds):.2g} on average."
    )
    others = near(choices, chosen, seconds)
    return f"{text} As good within the noise: {', '.join(c.name for c in others)}." if others else text


def _comparison(present: Choice, fitting: Sequence[Choice], seconds: float) -> str:
    chosen = min(fitting, key=lambda choice: choice.error(seconds))
    if present is chosen:
        return "This is the estimator in use."
    stated = f"{present.name} has the cosine {present.cosine(seconds):.2g} in the same time"
    if present in fitting and _is_near(present, chosen, seconds):
        return f"{stated}, which the draws do not distinguish from that: they are no reason to change it."
    return f"{stated}."


def _by_seconds(choices: Sequence[Choice]) -> str:
    ranges = by_seconds(choices)
    if len(ranges) == 1:
        return f"That holds for any time an update: {ranges[0].choice.name} has the smallest measured error throughout."
    parts = [
        f"{r.choice.name} up to {r.high:.3g} s" if r.low == 0 else f"{r.choice.name} from {r.low:.3g} s" for r in ranges
    ]
    return f"By the time of an update (larger batches): {', '.join(parts)}."


def _by_memory(choices: Sequence[Choice], seconds: float) -> str:
    parts = [f"from {mib(choice.peak_bytes)} {choice.name}" for choice in by_memory(choices, seconds)]
    return f"By the memory beyond weights, with {seconds:.3g} s an update: {', '.join(parts)}."


def _of_bias(choices: Sequence[Choice]) -> str:
    biased = [f"{c.name} ({(1 + c.direction.bias) ** -0.5:.2f})" for c in choices if c.direction.bias > 0]
    rest = [f"{c.name} (at least {(1 + c.direction.resolution) ** -0.5:.2f})" for c in choices if c.direction.bias == 0]
    one = (
        f"Biased in direction, however many samples an update has (the cosine that is left): {', '.join(biased)}. "
        if biased
        else ""
    )
    other = f"No bias of the direction was found in {', '.join(rest)}." if rest else ""
    return f"{one}{other}".strip()


def advice_without_reference(measured: Sequence[Measured], own: str, reference: str) -> list[str]:
    """Returns which estimator to use where the draws do not determine the gradient, in sentences.

    Estimators that are unbiased have the same mean, so their variances and times decide between them without it.

    Args:
        measured: The estimators, at least the reference.
        own: The name of the estimator that is used so far.
        reference: The name of the reference, which is unbiased.
    """
    exact = [m for m in measured if m.unbiased]
    found = [_by_variance(exact, next(m for m in exact if m.name == reference))] if len(exact) > 1 else []
    rest = [m.name for m in measured if not m.unbiased]
    return [*found, *_of_the_rest(rest, own, min(exact, key=lambda m: m.price).name)]


def _by_variance(exact: Sequence[Measured], reference: Measured) -> str:
    chosen = min(exact, key=lambda m: m.price)
    others = [(m, *m.ratio(chosen)) for m in exact if m is not chosen]
    close = ", ".join(m.name for m, ratio, error in others if ratio - ERRORS * error <= 1)
    worse = ", ".join(f"{m.name} {times(ratio)}" for m, ratio, error in others if ratio - ERRORS * error > 1)
    return (
        f"Of the estimators that are unbiased by construction, use {chosen.name}: it needs the least time for the same variance."
        f"{f' As good within the noise: {close}.' if close else ''}"
        f"{f' The others need more time for the same variance: {worse}.' if worse else ''}"
    )


def _of_the_rest(names: Sequence[str], own: str, chosen: str) -> list[str]:
    if not names:
        return []
    return [
        f"Of {', '.join(names)} nothing can be said: a bias may cost more than a small variance saves. Compare "
        f"{own if own in names else names[0]} with {chosen} in short trainings of equal time, by the reward and by a measure that "
        "is not trained for, on held-out prompts."
    ]


def times(ratio: float) -> str:
    """Returns a ratio in words, with two digits that count."""
    return f"{float(f'{ratio:.2g}'):,.10g} times"


def batches(count: float) -> str:
    """Returns a number of batches in words."""
    return "one batch" if 0.95 <= count <= 1.05 else f"{count:.2g} batches"


def mib(size: float) -> str:
    """Returns a number of bytes in MiB, or in GiB where it is large."""
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"
