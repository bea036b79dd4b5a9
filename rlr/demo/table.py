"""The table of a comparison as text."""

from collections.abc import Mapping
from functools import partial

from rlr.demo.labels import LABELS, show
from rlr.evaluation.statistics import Comparison
from rlr.evaluation.table import HEAD, Line, cells, columns


def rows(comparisons: Mapping[str, Comparison]) -> list[Line]:
    """Returns one row of text a measurement: label, base, aligned, difference, interval."""
    names = [name for name in LABELS if name in comparisons]
    return [(LABELS[name], *cells(comparisons[name], partial(show, name))) for name in names]


def table(comparisons: Mapping[str, Comparison]) -> str:
    """Returns the comparisons as lines of aligned columns."""
    return columns([HEAD, *rows(comparisons)])
