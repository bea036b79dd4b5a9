"""``history.csv``: the results of every evaluation of a training run."""

import csv
import io
from pathlib import Path

from rlr.evaluation.results import COLUMNS, Results
from rlr.io.atomic import write_whole

NAME = "history.csv"


def append_history(folder: Path, results: Results) -> None:
    """Adds the rows of ``results.csv`` with the number of updates.

    Rows of later updates, and those of the same measurement after the same update, are dropped: a resumed run writes the file that
    an uninterrupted one would have written.

    Args:
        folder: The folder of the file.
        results: The results.
    """
    file = folder / NAME
    rows = _read(file)
    new = [{"update": str(results.update), **row} for row in csv.DictReader(io.StringIO(results.csv().decode()))]
    replaced = {_key(row) for row in new}
    kept = [row for row in rows if int(row["update"]) <= results.update and _key(row) not in replaced]
    text = io.StringIO()
    writer = csv.DictWriter(text, ("update", *COLUMNS), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows([*kept, *new])
    write_whole(file, text.getvalue().encode())


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return row["update"], row["prompts"], row["measurement"]


def _read(file: Path) -> list[dict[str, str]]:
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))
