"""Rows that were measured, in a CSV file that is whole at every moment."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from experiments.base import Cell, Row
from experiments.scales import ROOT, Scale
from rlr.evaluation import provenance
from rlr.io.atomic import write_whole

FACTS = ("recipe", "seconds", "device", "threads", "date", "commit")
"""The last columns: what made a row, and what its whole cell cost."""

TEXTS = frozenset({"recipe", "device", "date", "commit"})
"""Columns that hold texts, even where these look like numbers."""

Line = dict[str, str]
"""A row as the file holds it."""


class Results:
    """The rows of an experiment.

    Args:
        path: The file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, scale: Scale, name: str) -> "Results":
        """Returns the rows of an experiment at a scale, by its name."""
        return cls(scale.results / scale.name / f"{name}.csv")

    @property
    def lines(self) -> list[Line]:
        """What the file holds now."""
        if not self.path.is_file():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return [{name: value for name, value in line.items() if value} for line in csv.DictReader(file)]

    def rows(self, cells: Iterable[Cell]) -> list[Row]:
        """Returns the rows of the cells that are measured, with numbers as numbers."""
        lines = self.lines
        return [_row(line, cell) for cell in cells for line in lines if _is_of(line, cell) and _fresh(line, cell)]

    def measured(self, cell: Cell) -> bool:
        """Whether there are rows of the cell, of its present recipe."""
        return any(_is_of(line, cell) and _fresh(line, cell) for line in self.lines)

    def stale(self, cell: Cell) -> bool:
        """Whether there are rows of the cell, of another recipe."""
        return any(_is_of(line, cell) and not _fresh(line, cell) for line in self.lines)

    def add(self, cell: Cell, rows: Sequence[Row], made: Mapping[str, str | float]) -> None:
        """Writes the rows of a cell in the place of those that it had, after all others.

        Args:
            cell: The cell.
            rows: Its rows.
            made: How they were made: :data:`FACTS` but for the recipe.

        Raises:
            ValueError: If there are no rows, or other cells of the file have other keys.
        """
        if not rows:
            raise ValueError(f"the cell {cell.title} returned no row; it must return at least one")
        new = [_line({**cell.key, **row, "recipe": cell.recipe, **made}) for row in rows]
        # another process may have added some
        lines = self.lines
        strange = next((line for line in lines if not cell.key.keys() <= line.keys()), None)
        if strange is not None:
            names = ", ".join(cell.key)
            raise ValueError(
                f"{self.path} has a row without all of {names}; move the file away, it is of another version"
            )
        self._write([line for line in lines if not _is_of(line, cell)] + new)

    def _write(self, lines: Sequence[Line]) -> None:
        names = dict.fromkeys(name for line in lines for name in line if name not in FACTS)
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, [*names, *FACTS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        write_whole(self.path, buffer.getvalue().encode())


def made(scale: Scale, seconds: float) -> dict[str, str | float]:
    """Returns how a cell was made, now, here and in so many seconds."""
    return {
        "seconds": round(seconds, 2),
        "device": provenance.device(scale.device),
        "threads": torch.get_num_threads(),
        "date": provenance.now(),
        "commit": provenance.commit(ROOT, but="experiments/results") or "",
    }


def _is_of(line: Line, cell: Cell) -> bool:
    return all(line.get(name) == str(value) for name, value in cell.key.items())


def _fresh(line: Line, cell: Cell) -> bool:
    return line.get("recipe") == cell.recipe


def _line(row: Mapping[str, str | float]) -> Line:
    return {name: value if isinstance(value, str) else repr(value) for name, value in row.items()}


def _row(line: Line, cell: Cell) -> Row:
    texts = TEXTS | {name for name, value in cell.key.items() if isinstance(value, str)}
    return {name: value if name in texts else _number(value) for name, value in line.items()}


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text
