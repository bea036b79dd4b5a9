r"""Which estimator for a budget: a function of measured errors, seconds and bytes alone.

In :math:`S` seconds an update, an estimator that takes :math:`t` seconds an estimate averages :math:`n = S / t` of them (a larger
batch, or accumulation), and has the error :math:`\beta^2 + v \, t / S` (:mod:`rlr.analysis.direction`). As functions of
:math:`1 / S` these are straight lines, of which the lowest is the best: variance decides where seconds are few, and bias where
they are many.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rlr.analysis.direction import Direction


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


def near(choices: Sequence[Choice], chosen: Choice, seconds: float, ratio: float = 1.25) -> list[Choice]:
    """Returns other choices whose error at so many seconds is at most ``ratio`` times that of the chosen one."""
    most = ratio * chosen.error(seconds)
    return [choice for choice in choices if choice is not chosen and choice.error(seconds) <= most]


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
        found.insert(1, _comparison(present, best(fitting, seconds) or present, seconds))
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


def _comparison(present: Choice, chosen: Choice, seconds: float) -> str:
    cosine = f"{present.cosine(seconds):.2g}"
    if present is chosen:
        return "This is the estimator in use."
    return f"{present.name} has the cosine {cosine} in the same time."


def _by_seconds(choices: Sequence[Choice]) -> str:
    ranges = by_seconds(choices)
    if len(ranges) == 1:
        return f"That holds for any time an update: {ranges[0].choice.name} has the smallest error throughout."
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


def batches(count: float) -> str:
    """Returns a number of batches in words."""
    return "one batch" if 0.95 <= count <= 1.05 else f"{count:.2g} batches"


def mib(size: float) -> str:
    """Returns a number of bytes in MiB, or in GiB where it is large."""
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"
