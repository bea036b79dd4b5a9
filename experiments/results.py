"""Rows that were measured, in a CSV file that is whole at every moment.

This is not a :class:`~rlr.io.keyed_file.KeyedFile`, which finds one value by a hash of its key, for programs alone. The rows are
what tables and figures quote: they are committed, read in a diff and opened in a spreadsheet, a run has several, and those of an
earlier command must stay visible until they are measured again.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from experiments.base import Row, Run
from experiments.settings import ROOT, Setting
from rlr.evaluation import provenance
from rlr.io.csv_file import read_csv, write_csv
from rlr.io.locks import locked

PROVENANCE = ("command", "seconds", "device", "threads", "date", "commit")
"""The last columns: what made a row, and what its whole run cost."""

TEXTS = frozenset({"command", "device", "date", "commit"})
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
    def of(cls, setting: Setting, name: str) -> "Results":
        """Returns the rows of an experiment at a setting, by its name."""
        return cls(setting.results / setting.name / f"{name}.csv")

    @property
    def lines(self) -> list[Line]:
        """What the file holds now."""
        return [{name: value for name, value in line.items() if value} for line in read_csv(self.path)]

    @property
    def seeds(self) -> list[int]:
        """The seeds of the rows, in order."""
        return sorted({int(line["seed"]) for line in self.lines if "seed" in line})

    def rows(self, runs: Iterable[Run]) -> list[Row]:
        """Returns the rows of the runs that are measured, with numbers as numbers."""
        lines = self.lines
        return [_row(line, run) for run in runs for line in lines if _is_of(line, run) and _fresh(line, run)]

    def measured(self, run: Run) -> bool:
        """Whether there are rows of the run, of its present command."""
        return any(_is_of(line, run) and _fresh(line, run) for line in self.lines)

    def stale(self, run: Run) -> bool:
        """Whether there are rows of the run, of another command."""
        return any(_is_of(line, run) and not _fresh(line, run) for line in self.lines)

    def add(self, run: Run, rows: Sequence[Row], made: Mapping[str, str | float]) -> None:
        """Writes the rows of a run in the place of those that it had, after all others.

        Args:
            run: The run.
            rows: Its rows.
            made: How they were made: :data:`PROVENANCE` but for the command.

        Raises:
            ValueError: If there are no rows, or other runs of the file have other keys.
        """
        if not rows:
            raise ValueError(f"the run {run.title} returned no row; it must return at least one")
        new = [_line({**run.key, **row, "command": run.command, **made}) for row in rows]
        # another process may add some at the same time
        with locked(self.path.parent):
            self._replace(run, new)

    def _replace(self, run: Run, new: Sequence[Line]) -> None:
        lines = self.lines
        strange = next((line for line in lines if not run.key.keys() <= line.keys()), None)
        if strange is not None:
            names = ", ".join(run.key)
            raise ValueError(
                f"{self.path} has a row without all of {names}; move the file away, it is of another version"
            )
        self._write([*(line for line in lines if not _is_of(line, run)), *new])

    def _write(self, lines: Sequence[Line]) -> None:
        names = dict.fromkeys(name for line in lines for name in line if name not in PROVENANCE)
        write_csv(self.path, [*names, *PROVENANCE], lines)


def provenance_columns(setting: Setting, seconds: float) -> dict[str, str | float]:
    """Returns how a run was made, now, here and in so many seconds."""
    return {
        "seconds": round(seconds, 2),
        "device": provenance.device(setting.device),
        "threads": torch.get_num_threads(),
        "date": provenance.now(),
        "commit": provenance.commit(ROOT, but="experiments/results") or "",
    }


def _is_of(line: Line, run: Run) -> bool:
    return all(line.get(name) == str(value) for name, value in run.key.items())


def _fresh(line: Line, run: Run) -> bool:
    return line.get("command") == run.command


def _line(row: Mapping[str, str | float]) -> Line:
    return {name: value if isinstance(value, str) else repr(value) for name, value in row.items()}


def _row(line: Line, run: Run) -> Row:
    texts = TEXTS | {name for name, value in run.key.items() if isinstance(value, str)}
    return {name: value if name in texts else _number(value) for name, value in line.items()}


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text
