"""Statistics of rows that differ in the seed only."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from experiments.base import Row


def grouped(rows: Sequence[Row], *names: str) -> dict[tuple[str | float, ...], list[Row]]:
    """Returns the rows by the values of some columns, in the order of the rows; rows without one of them are left out."""
    groups: dict[tuple[str | float, ...], list[Row]] = {}
    for row in rows:
        if all(name in row for name in names):
            groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def numbers(rows: Sequence[Row], name: str) -> list[float]:
    """Returns the numbers of a column."""
    return [value for row in rows if isinstance(value := row.get(name), float)]


def standard_error(values: Sequence[float]) -> float:
    """Returns the standard error of a mean; nan for fewer than two values."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def spread(values: Sequence[float], decimals: int = 2, scale: float = 1.0) -> str:
    """Returns mean ± standard error as text; the mean alone if all values are equal, and a dash without values."""
    if not values:
        return "–"
    mean = _text(scale * fmean(values), decimals)
    return mean if len(set(values)) < 2 else f"{mean} ± {_text(scale * standard_error(values), decimals)}"


def mean_of(rows: Sequence[Row], name: str, decimals: int = 2, scale: float = 1.0) -> str:
    """Returns mean ± standard error of a column."""
    return spread(numbers(rows, name), decimals, scale)


def difference_of(rows: Sequence[Row], name: str, decimals: int = 2) -> str:
    """Returns mean ± standard error of a column of differences, with the sign of the mean."""
    text = mean_of(rows, name, decimals)
    return text if text[0] in "−–" else f"+{text}"


def best(rows: Sequence[Row], worth: Callable[[Sequence[Row]], float], *names: str) -> tuple[str | float, ...]:
    """Returns the values of some columns whose group of rows has the largest worth.

    Raises:
        ValueError: If there are no rows.
    """
    groups = grouped(rows, *names)
    if not groups:
        raise ValueError(f"no row has all of the columns {', '.join(names)}, so there is no best one")
    return max(groups, key=lambda key: worth(groups[key]))


def _text(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "−")
