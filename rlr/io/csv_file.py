"""CSV files with a header: UTF-8, lines that end at a line feed, written whole or not at all."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlr.io.atomic import write_whole

Row = Mapping[str, Any]
"""A row by the names of its columns; a column that it lacks is empty."""


def to_csv(columns: Sequence[str], rows: Iterable[Row | Sequence[Any]]) -> bytes:
    """Returns rows as the content of a CSV file.

    Args:
        columns: The names of the columns.
        rows: The rows, by name or in the order of the columns; names that are no column are left out.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([row.get(name, "") for name in columns] if isinstance(row, Mapping) else row)
    return buffer.getvalue().encode()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row | Sequence[Any]]) -> None:
    """Writes rows as a CSV file.

    Raises:
        OSError: If the file cannot be written; the old file is then unchanged.
    """
    write_whole(path, to_csv(columns, rows))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV file; none where there is no such file."""
    return read_table(path)[1]


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Returns the columns and the rows of a CSV file; none where there is no such file.

    Raises:
        ValueError: If the file is damaged.
    """
    if not path.is_file():
        return [], []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        try:
            # cells beyond the header have no name, and those that a cut line lacks no text
            rows = [{name: text or "" for name, text in row.items() if name is not None} for row in reader]
        except csv.Error as error:
            raise ValueError(
                f"{path}: expected rows of comma-separated values, found something else in line {reader.line_num} ({error}); "
                "remove the file"
            ) from error
        return list(reader.fieldnames or []), rows
