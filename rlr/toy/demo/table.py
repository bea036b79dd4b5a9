"""The table of a comparison as text."""

from collections.abc import Mapping
from functools import partial

from rlr.evaluation.statistics import Comparison
from rlr.evaluation.table import HEAD, Line, cells, columns
from rlr.toy.demo.labels import show


def rows(comparisons: Mapping[str, Comparison], labels: Mapping[str, str]) -> list[Line]:
    """Returns one row of text a measurement: label, base, aligned, difference, interval."""
    return [
        (label, *cells(comparisons[name], partial(show, name))) for name, label in labels.items() if name in comparisons
    ]


def table(comparisons: Mapping[str, Comparison], labels: Mapping[str, str]) -> str:
    """Returns the comparisons as lines of aligned columns."""
    return columns([HEAD, *rows(comparisons, labels)])
