"""Runs as a table."""

import math
from collections.abc import Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from rlr.io.csv_file import to_csv
from rlr.records.groups import flat
from rlr.records.record import Record


class RunTable(list[dict[str, Any]]):
    """Runs, a dictionary each: a list without further dependencies, that pandas takes as it is."""

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in the order in which they first occur."""
        return list(dict.fromkeys(name for row in self for name in row))

    def csv(self) -> bytes:
        """Returns the table as the content of a CSV file."""
        return to_csv(self.columns, self)

    def to_pandas(self) -> Any:
        """Returns the table as a ``pandas.DataFrame``.

        Raises:
            ModuleNotFoundError: If pandas is not installed, which this library does not need.
        """
        try:
            import pandas
        except ImportError as error:
            raise ModuleNotFoundError(
                f"to_pandas needs pandas, which does not import ({error}); pip install pandas, or use the rows of the table as "
                "dictionaries"
            ) from error
        return pandas.DataFrame(self, columns=self.columns)


def runs(patterns: str | Path | Sequence[str | Path] = "runs/*") -> RunTable:
    """Returns a table of runs: name, folder, updates, costs, results, and the settings of the config.

    ``rlr.runs("runs/*").to_pandas()`` is a DataFrame, if pandas is installed. The last value of a column of ``metrics.csv`` has its
    own name, such as ``reward/mean``; a result of an evaluation is ``test/PROMPTS/MEASUREMENT`` with ``_base``, ``_difference``,
    ``_low`` and ``_high``; a setting is ``config/model.lr``, say.

    Args:
        patterns: Folders of runs, or patterns such as ``runs/*``.

    Raises:
        FileNotFoundError: If no folder holds a run.
        ValueError: If a file of a run is damaged.
    """
    listed = [patterns] if isinstance(patterns, str | Path) else patterns
    return RunTable(dict(_row(Record(folder))) for folder in found([str(pattern) for pattern in listed]))


def found(patterns: Sequence[str]) -> list[Path]:
    """Returns the folders of runs that patterns match, each once; a pattern leaves out what holds no run.

    Raises:
        FileNotFoundError: If a folder that is named holds no run, or a pattern matches none.
    """
    folders: list[Path] = []
    for pattern in patterns:
        matched = [Path(pattern)] if Path(pattern).exists() else sorted(map(Path, glob(pattern)))
        held = [folder for folder in matched if Record.is_one(folder)]
        if not held:
            raise FileNotFoundError(
                f"{pattern}: expected the folder of a run, with config.yaml, metrics.csv or an evaluation, found "
                f"{'no such folder' if not matched else 'none of them'}; name a folder such as runs/NAME, or a pattern such as "
                "'runs/*'"
            )
        folders += [folder for folder in held if folder not in folders]
    return folders


def _row(record: Record) -> Iterator[tuple[str, Any]]:
    yield from (("name", record.name), ("folder", str(record.folder)), ("updates", record.updates))
    for key in record.keys:
        series = record.series(key).finite()
        if len(series):
            yield key, series.values[-1]
    for stage, results in record.results.items():
        for name, found_ in results["sets"].items():
            for label, numbers in found_.get("results", {}).items():
                yield from _numbers(f"{stage}/{name}/{label}", numbers)
    yield from ((f"config/{key}", value) for key, value in flat(record.config).items())


def _numbers(key: str, numbers: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    yield key, numbers.get("aligned", numbers.get("mean", math.nan))
    yield from ((f"{key}_{part}", numbers[part]) for part in ("base", "difference", "low", "high") if part in numbers)
