"""The seconds of an update, and the pages that use them."""

import shlex

import pytest

from experiments.base import Row
from experiments.board.board import BoardA
from experiments.board.finals import BoardFinalsA
from experiments.board.tracks import points
from experiments.board.update_seconds import BEGIN, END, UpdateSecondsA, UpdateSecondsB, timed
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
    runs = [run for run in UpdateSecondsA().runs(setting, (0, 1)) if run.key["method"] == "AlignProp"]
    for run, seconds in zip(runs, ({0: 0.0, BEGIN: 40.0, END: 52.0}, {0: 0.0, BEGIN: 9.0, END: 29.0}), strict=True):
        Results.of(setting, UpdateSecondsA.name).add(run, rows_of(seconds), {})
    return setting


@pytest.mark.parametrize("seconds", [UpdateSecondsA, UpdateSecondsB])
def test_the_updates_are_whole_rounds_of_every_method_on_the_page(seconds, setting) -> None:
    methods = {entry.method.name: entry.method for entry in seconds().of_track() if not entry.ablation}
    runs = seconds().runs(setting, SEEDS)
    assert [run.key["method"] for run in runs[: len(methods)]] == list(methods)
    assert len(runs) == len(SEEDS) * len(methods)
    for run in runs:
        assert f"--trainer.callbacks.updates=[{BEGIN},{END}]" in shlex.split(run.command)
        assert BEGIN % methods[str(run.key["method"])].updates_per_round == 0
        assert END % methods[str(run.key["method"])].updates_per_round == 0


def test_the_seconds_leave_out_the_first_updates(measured) -> None:
    assert UpdateSecondsA().each(measured) == {"AlignProp": 2.0}
    rows = Results.of(measured, UpdateSecondsA.name).rows(UpdateSecondsA().runs(measured, (0, 1)))
    (table,) = UpdateSecondsA().report(rows)
    assert table.rows == [("AlignProp", "16", "2.00", "1.50 … 2.50", "1.00", "2")]


def test_seconds_are_updates_times_those_of_one_where_they_are_measured() -> None:
    rows: list[Row] = [{"method": name, "update": 25.0, "step_seconds": 7.0, "R": 1.0} for name in ("a", "b")]
    assert timed(rows, {"a": 2.0}) == [{**rows[0], "step_seconds": 50.0}, rows[1]]


def test_board_and_table_use_them_and_other_settings_do_not(measured) -> None:
    tune(measured, BoardFinalsA, "1.0e-3", "AlignProp")
    (run,) = BoardA().runs(measured, (0,))
    ends = points(next(m for m in BoardA().methods() if m.name == "AlignProp"), [3200])
    Results.of(measured, BoardA.name).add(run, rows_of({ends[-1]: 9999.0}), {})
    rows = Results.of(measured, BoardA.name).rows([run])
    for experiment in (BoardA(), Table2()):
        (row,) = experiment.prepared(measured, rows)
        assert row["step_seconds"] == 2.0 * ends[-1]
    assert Table2().prepared(SD14, rows) == rows
