"""The best values of the first tries run over the length of the board, and the best of these is the board's."""

import pytest

from experiments.board.finals import BoardFinalsA, BoardFinalsB, BoardFinalsFlow
from experiments.board.report import MISSING
from experiments.board.tracks import TRACK_A
from experiments.board.tuning import SEED, BoardTuningA
from experiments.methods import RATES
from experiments.results import Results
from tests.experiments.tuned import tune

JUDGE = TRACK_A.judge


def add(setting, experiment, worths: dict[str, list[float]], name: str = "LeapAlign") -> None:
    """Adds the judgments of the second half of a method's tries by value."""
    for run in experiment.runs(setting, ()):
        if run.key["method"] == name and run.key["value"] in worths:
            rows = [{"update": float(k + 1), JUDGE: x} for k, x in enumerate(worths[str(run.key["value"])])]
            Results.of(setting, experiment.name).add(run, rows, {})


def test_no_method_has_runs_before_its_first_tries(setting) -> None:
    assert BoardFinalsA().runs(setting, ()) == []
    assert BoardFinalsA().selected(setting) == {}


def test_the_value_that_is_best_in_short_runs_may_lose_in_long_ones(setting) -> None:
    add(setting, BoardTuningA(), dict(zip(RATES, ([1.0], [2.0], [3.0], [4.0], [0.0]), strict=True)))
    finals = BoardFinalsA()
    assert [run.key["value"] for run in finals.runs(setting, ())] == [RATES[3], RATES[2]]
    add(setting, finals, {RATES[3]: [5.0, 3.0, 1.0]})
    assert finals.selected(setting) == {}, "one of two runs is missing"
    table, _ = finals.report(Results.of(setting, finals.name).rows(finals.runs(setting, ())))
    assert table.rows == [("LeapAlign", "3.000", MISSING, "1")]
    add(setting, finals, {RATES[2]: [3.0, 3.5, 4.0]})
    assert finals.selected(setting) == {"LeapAlign": RATES[2]}
    table, ends = finals.report(Results.of(setting, finals.name).rows(finals.runs(setting, ())))
    assert table.rows == [("LeapAlign", "3.500", "3.000", "0.001", "2")]
    assert len(ends.rows) == 2


@pytest.mark.parametrize("finals", [BoardFinalsA, BoardFinalsB, BoardFinalsFlow])
def test_runs_are_as_long_as_those_of_the_board_and_see_none_of_its_captions(finals, setting) -> None:
    tune(setting, finals, RATES[2])
    methods = {method.name: method for method in finals().methods()}
    for run in finals().runs(setting, ()):
        method = methods[str(run.key["method"])]
        assert f"--trainer.max_steps={method.updates(finals.track.samples)}" in run.command
        assert "board_tuning.yaml" in run.command
        assert f"--model.init_args.seed={SEED}" in run.command
