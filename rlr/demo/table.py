"""The table of a comparison as text."""

from collections.abc import Mapping

from rlr.demo.labels import LABELS, show
from rlr.demo.statistics import Comparison

HEAD = ("", "base", "aligned", "difference", "95 % interval")


def rows(comparisons: Mapping[str, Comparison]) -> list[tuple[str, ...]]:
    """Returns one row of text a measurement: label, base, aligned, difference, interval."""
    return [(LABELS[name], *_cells(name, comparisons[name])) for name in LABELS if name in comparisons]


def _cells(name: str, value: Comparison) -> tuple[str, ...]:
    low, high = show(name, value.low, signed=True), show(name, value.high, signed=True)
    difference = show(name, value.difference, signed=True)
    return show(name, value.base), show(name, value.aligned), difference, f"{low} … {high}"


def table(comparisons: Mapping[str, Comparison]) -> str:
    """Returns the comparisons as lines of aligned columns."""
    lines = [HEAD, *rows(comparisons)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(HEAD))]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    rest = "  ".join(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return f"{cells[0].ljust(widths[0])}  {rest}"
