"""One column of parquet files, row by row: no other column is read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlr.data.cleaning import Entry


def parquet_column(path: Path, column: str, remedy: str = "set column to one of these") -> Iterator[Entry]:
    """Yields the texts of a column with the number of their row, from 1; an empty cell is an empty text.

    Args:
        path: The file.
        column: The name of the column.
        remedy: What to do if the file has no such column, for messages.

    Raises:
        ValueError: If the file is damaged, or has no texts under ``column``.
    """
    # imported here, since few data sets need it
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            _check_column(file.schema_arrow, path, column, remedy)
            for group in range(file.num_row_groups):
                for text in file.read_row_group(group, columns=[column]).column(0).to_pylist():
                    number += 1
                    yield Entry(text or "", path, number, "row")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is damaged or cut short: nothing can be read from row {number + 1} on; download it again"
        ) from error


def _check_column(schema: Any, path: Path, column: str, remedy: str) -> None:
    import pyarrow as pa

    if column not in schema.names:
        raise ValueError(f"{path} has no column {column!r} but {', '.join(schema.names) or 'no columns'}; {remedy}")
    kind = schema.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ValueError(
            f"the column {column!r} of {path} holds {kind} from row 1 on, where text should be; save it as strings"
        )
