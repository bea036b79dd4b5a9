"""The seconds of an update, and the pages that use them."""

import shlex

import pytest

from experiments.base import Row
from experiments.board.board import BoardA
from experiments.board.finals import BoardFinalsA
from experiments.board.pace import BEGIN, END, BoardPaceA, BoardPaceB, paced
from experiments.board.tracks import points
from experiments.cli import SEEDS
from experiments.paper.table2 import Table2
from experiments.results import Results
from experiments.settings import SD14
from tests.experiments.tuned import tune


def rows_of(seconds: dict[int, float]) -> list[Row]:
    return [{"update": float(update), "step_seconds": spent} for update, spent in seconds.items()]


@pytest.fixture
def measured(setting):
    """Two runs of one method, with 1.5 and 2.5 seconds an update after slow first updates."""
    runs = [run for run in BoardPaceA().runs(setting, (0, 1)) if run.key["method"] == "AlignProp"]
    for run, seconds in zip(runs, ({0: 0.0, BEGIN: 40.0, END: 52.0}, {0: 0.0, BEGIN: 9.0, END: 29.0}), strict=True):
        Results.of(setting, BoardPaceA.name).add(run, rows_of(seconds), {})
    return setting


@pytest.mark.parametrize("pace", [BoardPaceA, BoardPaceB])
def test_the_updates_are_whole_rounds_of_every_method_on_the_page(pace, setting) -> None:
    methods = {entry.method.name: entry.method for entry in pace().of_track() if not entry.ablation}
    runs = pace().runs(setting, SEEDS)
    assert [run.key["method"] for run in runs[: len(methods)]] == list(methods)
    assert len(runs) == len(SEEDS) * len(methods)
    for run in runs:
        assert f"--trainer.callbacks.updates=[{BEGIN},{END}]" in shlex.split(run.command)
        assert BEGIN % methods[str(run.key["method"])].updates_per_round == 0
        assert END % methods[str(run.key["method"])].updates_per_round == 0


def test_the_pace_leaves_out_the_first_updates(measured) -> None:
    assert BoardPaceA().paces(measured) == {"AlignProp": 2.0}
    rows = Results.of(measured, BoardPaceA.name).rows(BoardPaceA().runs(measured, (0, 1)))
    (table,) = BoardPaceA().report(rows)
    assert table.rows == [("AlignProp", "2.00", "1.50 … 2.50", "1.00", "2")]


def test_seconds_are_updates_times_the_pace_where_there_is_one() -> None:
    rows: list[Row] = [{"method": name, "update": 25.0, "step_seconds": 7.0, "R": 1.0} for name in ("a", "b")]
    assert paced(rows, {"a": 2.0}) == [{**rows[0], "step_seconds": 50.0}, rows[1]]


def test_board_and_table_use_the_pace_and_other_settings_do_not(measured) -> None:
    tune(measured, BoardFinalsA, "1.0e-3", "AlignProp")
    (run,) = BoardA().runs(measured, (0,))
    ends = points(next(m for m in BoardA().methods() if m.name == "AlignProp"), [3200])
    Results.of(measured, BoardA.name).add(run, rows_of({ends[-1]: 9999.0}), {})
    rows = Results.of(measured, BoardA.name).rows([run])
    for experiment in (BoardA(), Table2()):
        (row,) = experiment.prepared(measured, rows)
        assert row["step_seconds"] == 2.0 * ends[-1]
    assert Table2().prepared(SD14, rows) == rows
