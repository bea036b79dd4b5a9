"""What an analysis has found: tables, one image, and a page."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rlr.analysis.explained import Explained
from rlr.analysis.recommendation import Measured, advice, advice_without_reference
from rlr.analysis.survey import DETERMINED, HOPELESS, LEAST, Row, Survey
from rlr.evaluation.report import MISSING, Block, Chart, Facts, Media, Table, Text, page, written
from rlr.io.csv_file import to_csv

MIB = 2**20

HEAD = ("estimator", "share of g", "bias", "variance", "cosine", "deep cosine", "limit", "peak MiB", "s / estimate")
NORMALIZED = ("estimator", "cosine", "deep cosine", "limit", "peak MiB", "s / estimate")
UNKNOWN = ("estimator", "unbiased", "variance", "largest norm", "peak MiB", "s / estimate")


@dataclass(frozen=True)
class Analysis:
    """A finished analysis.

    Args:
        survey: The comparison of estimators.
        explained: The shares of the reward's variance that the look-ahead control variate explains.
        control: What that control variate is, in words.
        own: The name of the config's estimator.
        seconds: The seconds of an update to advise for; None for those of the config's estimator.
        peak_bytes: The memory to advise for; None for no limit.
        facts: What is needed to repeat it.
    """

    survey: Survey
    explained: Sequence[Explained]
    control: str
    own: str
    seconds: float | None
    peak_bytes: float | None
    facts: Mapping[str, str]

    @property
    def advice(self) -> list[str]:
        """Which estimator to use."""
        if choices := self.survey.choices:
            return advice(choices, self.own, self.seconds, self.peak_bytes)
        survey = self.survey
        measured = [
            Measured(row.name, row.spread, row.cost.seconds, row.name in survey.unbiased) for row in survey.rows
        ]
        return [_why(survey), *advice_without_reference(measured, self.own, survey.reference)]

    @property
    def tables(self) -> list[Table]:
        """The tables."""
        return [accuracy_table(self.survey), explained_table(self.explained, self.control)]

    def text(self) -> str:
        """Returns everything for a terminal."""
        parts = [f"{table.title}\n\n{table.text()}\n\n{table.note}" for table in self.tables]
        return "\n\n".join([*parts, TITLE, "\n".join(f"* {sentence}" for sentence in self.advice)])

    def html(self) -> str:
        """Returns the page."""
        table, shares = self.tables
        known = [Chart(FIGURE, Media(self.image(), FIGURE), note=FIGURE_NOTE)] if self.survey.choices else []
        blocks: list[Block] = [
            Text(TITLE, self.advice),
            table,
            *known,
            shares,
            Facts("How it was measured", self.facts),
        ]
        return page("Gradient estimators", LEAD, blocks)

    def image(self) -> bytes:
        """Returns the image as a PNG."""
        figure = Figure(figsize=(10.5, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, width_ratios=(2, 1))
        _curves(left, self.survey)
        _memory(right, self.survey)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
        return buffer.getvalue()

    def csv(self) -> bytes:
        """Returns all numbers, a row each estimator, as the content of a CSV file."""
        rows = [_numbers(row) for row in self.survey.rows]
        return to_csv(list(dict.fromkeys(name for row in rows for name in row)), rows)


def _why(survey: Survey) -> str:
    """Returns why bias and cosine are not known, and how many draws they need."""
    here = (
        f"the standard error of ‖g‖² is {survey.error:.0%} of it, and {DETERMINED:.0%} is the most"
        if math.isfinite(survey.error)
        else "the estimate of ‖g‖² is not positive"
    )
    # the error of a square falls with the number of draws while it is large
    factor = max(2, math.ceil(survey.error / DETERMINED)) if math.isfinite(survey.error) else 4
    return (
        f"{survey.reference_draws} draws of {survey.reference} do not determine the gradient, so bias and cosine are not known: "
        f"{here}. Set draws to {factor * survey.rounds} or more (about {factor} times the time), or data.batch_size higher."
    )


TITLE = "Which estimator for your budget"
FIGURE = "Cosine with the gradient against the time of an update; memory of one estimate"
LEAD = "Bias, variance, direction and cost of gradient estimators on this model, reward, sampler and data."
FIGURE_NOTE = (
    "Left: the cosine with g of the mean of n estimates, n being the seconds of an update over those of an estimate; dashed for "
    "n < 1. A curve that ends below 1 is biased. Right: the most bytes of tensors alive at once beyond weights."
)


def _numbers(row: Row) -> dict[str, object]:
    found: dict[str, object] = {"estimator": row.name, **asdict(row.cost), "tail": row.tail}
    if row.accuracy:
        found |= asdict(row.accuracy)
    if row.direction:
        found |= {f"direction_{name}": value for name, value in asdict(row.direction).items()}
    return found


def accuracy_table(survey: Survey) -> Table:
    """Returns the table of the estimators."""
    head, line = _columns(survey)
    title = (
        f"{survey.rounds} estimates of each estimator, {survey.reference_draws} of {survey.reference}, whose mean is g"
    )
    return Table(title, head, [line(row) for row in survey.rows], _note(survey))


def _columns(survey: Survey) -> tuple[Sequence[str], Callable[[Row], tuple[str, ...]]]:
    """Returns the head of the table, and the function that makes a line of a row."""
    if not survey.known:
        return UNKNOWN, partial(_unknown, survey)
    return (NORMALIZED, _direction) if survey.normalized else (HEAD, _whole)


def _note(survey: Survey) -> str:
    missing = _fewer(survey) + _left_out(survey.failures)
    reference = _reference(survey)
    if not survey.known:
        return (
            "The draws do not determine g, nor its direction. The variance is that of one estimate, relative to that of "
            f"{survey.reference}; where an estimator is not unbiased by construction, it says nothing of the bias.{missing}"
        )
    share = f"The square of ‖g‖ is known to ± {survey.error:.0%}, an error that all rows share."
    limit = (
        "The limit is the cosine of the mean of all estimates with g: 1 without a bias of the direction; ≥ where the draws find no "
        "bias, and would find one that brings it lower."
    )
    if survey.normalized:
        return (
            f"The draws of {survey.reference} do not determine their mean (the largest norm is {reference.tail:.3g} times the "
            "median), so every draw was divided by its norm: g is the mean direction of the reference, which an optimizer follows "
            f"that clips the gradient to a small norm. {share} {limit}{missing}"
        )
    return (
        f"Relative to ‖g‖, with standard errors; the bias with an interval of two. {share} The deep cosine is that with the part "
        f"of g that goes through the early steps. {limit}{missing}"
    )


def _fewer(survey: Survey) -> str:
    """Returns which estimators were not drawn to the end."""
    names = [row.name for row in survey.rows if row.draws < survey.rounds]
    if not names:
        return ""
    return (
        f" {LEAST} estimates alone of {', '.join(names)}, which take more than {HOPELESS} times the time of {survey.reference} for "
        "the same variance."
    )


def _left_out(failures: Mapping[str, str]) -> str:
    """Returns which estimators are missing and why, each reason once."""
    reasons = {why: [name for name, other in failures.items() if other == why] for why in failures.values()}
    return "".join(f" Left out: {', '.join(names)} ({why})." for why, names in reasons.items())


def _whole(row: Row) -> tuple[str, ...]:
    a = row.accuracy
    assert a is not None
    bias = f"{a.bias:.2g} ({a.least:.2g} … {a.most:.2g})"
    share, variance = (f"{written(x, 2)} ± {e:.2f}" for x, e in ((a.share, a.share_error),)), f"{a.variance:.3g}"
    return (row.name, *share, bias, variance, *_direction(row)[1:])


def _direction(row: Row) -> tuple[str, ...]:
    a = row.accuracy
    assert a is not None
    cosines = ((a.cosine, a.cosine_error), (a.deep_cosine, a.deep_cosine_error))
    return (row.name, *(_plus(x, e) for x, e in cosines), _limit(row), *_cost(row))


def _plus(value: float, error: float) -> str:
    return MISSING if math.isnan(value) else f"{written(value, 3)} ± {error:.3f}"


def _limit(row: Row) -> str:
    d = row.direction
    if d is None:
        return MISSING
    return f"{(1 + d.bias) ** -0.5:.2f}" if d.bias else f"≥ {(1 + d.resolution) ** -0.5:.2f}"


def _unknown(survey: Survey, row: Row) -> tuple[str, ...]:
    whole = _reference(survey).spread.variance
    variance = " ± ".join(f"{float(f'{x / whole:.2g}'):g}" for x in (row.spread.variance, row.spread.error))
    exact = "yes" if row.name in survey.unbiased else MISSING
    # estimates that are mostly 0 have the median 0
    tail = f"{row.tail:.3g} medians" if math.isfinite(row.tail) else MISSING
    return (row.name, exact, variance, tail, *_cost(row))


def _reference(survey: Survey) -> Row:
    return next(row for row in survey.rows if row.name == survey.reference)


def _cost(row: Row) -> tuple[str, str]:
    return f"{row.cost.peak_bytes / MIB:.3g}", f"{row.cost.seconds:.2g}"


def explained_table(found: Sequence[Explained], control: str) -> Table:
    """Returns the table of the control variate, early steps first.

    Args:
        found: The shares.
        control: What the control variate is, in words.
    """
    rows = [(str(e.step), f"x_{e.step - 1}", _plus(e.share, e.error)) for e in found]
    note = (
        f"The control variate of LookAhead is c(x_j), {control}. The variance that it explains is taken out of the likelihood "
        "ratio of a segment that ends in x_j, and its slope is the pathwise half of the term."
    )
    return Table("Share of the reward's variance that c explains", ("step", "state", "share"), rows, note)


def _curves(axes: Axes, survey: Survey) -> None:
    choices = survey.choices
    low, high = min(c.seconds for c in choices) / 2, max(c.seconds for c in choices) * 300
    for choice in choices:
        at = np.geomspace(low, high, 200)
        values = np.array([choice.cosine(seconds) for seconds in at])
        whole = at >= choice.seconds
        (curve,) = axes.plot(at[whole], values[whole], label=choice.name)
        axes.plot(at[~whole], values[~whole], "--", color=curve.get_color(), linewidth=0.8, alpha=0.6)
    axes.set(xscale="log", xlabel="seconds an update", ylabel="cosine with g", ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)


def _memory(axes: Axes, survey: Survey) -> None:
    names = [row.name for row in survey.rows]
    axes.barh(names, [row.cost.peak_bytes / MIB for row in survey.rows], height=0.6, color="tab:gray")
    axes.set(xlabel="peak MiB")
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
