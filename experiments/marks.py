"""The points at which the rows of a training run are measured."""

from collections.abc import Mapping, Sequence

from experiments.base import Row, Run
from experiments.methods import Target

START, CURVE, SAMPLES, SECONDS = "start", "curve", "samples", "seconds"
"""The base model, a point during training, equal samples, equal seconds."""


def marked(run: Run, budgets: Mapping[int, str], target: Target) -> Run:
    """Returns the run with additional columns: the point of the measurement and the reward of the training.

    Args:
        run: The run.
        budgets: The names of the points by the numbers of updates.
        target: The reward of the training.
    """

    def measure() -> list[Row]:
        rows: list[Row] = []
        for row in run.measure():
            marks: Row = {"at": {0: START, **budgets}[int(float(row["update"]))], "proxy": row[target.label]}
            gains: Row = {"proxy gain": row[f"{target.label} gain"]} if f"{target.label} gain" in row else {}
            rows.append({**marks, **gains, **row})
        return rows

    return Run(run.key, run.command, measure)


def at(rows: Sequence[Row], mark: str) -> list[Row]:
    """Returns the rows that are measured at a point."""
    return [row for row in rows if mark in str(row.get("at", "")).split()]
