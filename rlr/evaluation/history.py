"""``history.csv``: the results of every evaluation of a training run."""

from pathlib import Path

from rlr.evaluation.results import COLUMNS, Results
from rlr.io.csv_file import read_csv, write_csv

NAME = "history.csv"


def append_history(folder: Path, results: Results) -> None:
    """Adds the rows of ``results.csv`` with the number of updates.

    Rows of later updates, and those of the same measurement after the same update, are dropped: a resumed run writes the file that
    an uninterrupted one would have written.

    Args:
        folder: The folder of the file.
        results: The results.
    """
    new = [{"update": results.update, **line} for line in results.lines()]
    replaced = {_key(row) for row in new}
    rows = [row for row in read_csv(folder / NAME) if row.get("update", "").isdecimal()]
    kept = [row for row in rows if int(row["update"]) <= results.update and _key(row) not in replaced]
    write_csv(folder / NAME, ("update", *COLUMNS), [*kept, *new])


def _key(row: dict[str, str] | dict[str, object]) -> tuple[str, ...]:
    return str(row["update"]), str(row.get("prompts", "")), str(row.get("measurement", ""))
