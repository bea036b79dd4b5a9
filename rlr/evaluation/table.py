"""Tables as text."""

from collections.abc import Callable, Sequence

from rlr.evaluation.statistics import Comparison

Line = tuple[str, ...]

HEAD = ("", "base", "aligned", "difference", "95 % interval")
"""The head of a table of comparisons."""


def cells(value: Comparison, show: Callable[[float, bool], str]) -> Line:
    """Returns base, aligned, difference and interval as ``show(number, signed)`` writes them."""
    bounds = f"{show(value.low, True)} … {show(value.high, True)}"
    return show(value.base, False), show(value.aligned, False), show(value.difference, True), bounds


def columns(lines: Sequence[Line]) -> str:
    """Returns lines of aligned columns, the first to the left and the others to the right."""
    widths = _widths(lines)
    return "\n".join("  ".join(_padded(line, widths)) for line in lines)


def markdown(lines: Sequence[Line]) -> str:
    """Returns a table in Markdown whose source is aligned, too; the first line is the head."""
    widths = _widths(lines)
    head, *body = [f"| {' | '.join(_padded(line, widths))} |" for line in lines]
    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([head, f"|{rule}|", *body])


def _widths(lines: Sequence[Line]) -> list[int]:
    # three: the least that a rule of Markdown may be
    return [max(3, *(len(line[k]) for line in lines)) for k in range(len(lines[0]))]


def _padded(line: Line, widths: Sequence[int]) -> list[str]:
    rest = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
    return [line[0].ljust(widths[0]), *rest]
