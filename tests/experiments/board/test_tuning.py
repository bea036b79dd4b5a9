"""The same number of tries for every method, a rule of selection that is fixed, and extensions at the edge."""

import math
from dataclasses import replace

import pytest

from experiments.base import Row
from experiments.board.methods import ENTRIES
from experiments.board.prompts import DEMO_DRAWS, DEMO_SEED, BoardPrompts, TuningPrompts
from experiments.board.tracks import TRACK_A, TRACK_B, TRACK_FLOW
from experiments.board.tuning import (
    EXTENSIONS,
    SEED,
    BoardTuningA,
    BoardTuningB,
    BoardTuningFlow,
    Tries,
    extension,
    ranked,
    score,
)
from experiments.cli import SEEDS
from experiments.methods import RATES, Method
from experiments.results import Results
from experiments.settings import SD14
from rlr.toy.world.prompts import held_out_prompts

METHOD = Method("m", "", rates=RATES)


@pytest.mark.parametrize(
    ("experiment", "track"), [(BoardTuningA, TRACK_A), (BoardTuningB, TRACK_B), (BoardTuningFlow, TRACK_FLOW)]
)
def test_every_method_has_as_many_tries(experiment, track, setting) -> None:
    runs = experiment().runs(setting, SEEDS)
    names = {entry.method.name for entry in ENTRIES if track in entry.tracks and not entry.rate_of}
    tries = {name: {run.key["value"] for run in runs if run.key["method"] == name} for name in names}
    assert {len(values) for values in tries.values()} == {5}
    assert len(runs) == 5 * len(names) == len({run.title for run in runs})
    assert SEED not in SEEDS
    assert all("board_tuning.yaml" in run.command and f"--model.init_args.seed={SEED}" in run.command for run in runs)


def test_tuning_board_and_demo_have_no_caption_in_common() -> None:
    demo = set(held_out_prompts(DEMO_DRAWS, DEMO_SEED))
    board, tuning = (
        kind(number=kind(number=1).batch_size * 24).prompts("val") for kind in (BoardPrompts, TuningPrompts)
    )
    assert len(board) == len(set(board)) == len(tuning) == len(set(tuning)) == 96
    assert not set(board) & set(tuning)
    assert not demo & {*board, *tuning}
    assert BoardPrompts(number=4).prompts("train") == []
    with pytest.raises(ValueError, match="expected 1 to"):
        BoardPrompts(number=10_000)


def tries(*scores: float) -> dict[str, float]:
    return dict(zip(RATES, scores, strict=False))


def test_the_largest_score_comes_first_and_of_equal_ones_the_smallest_value() -> None:
    assert ranked(tries(1.0, 3.0, 2.0)) == [RATES[1], RATES[2], RATES[0]]
    assert ranked(tries(1.0, 3.0, 3.0))[:2] == [RATES[1], RATES[2]]
    assert ranked({"1.0e-2": 3.0, "3.0e-4": 3.0})[0] == "3.0e-4"


def test_a_score_is_the_mean_of_the_second_half_of_a_run() -> None:
    rows: list[Row] = [{"update": float(k), "judge": x} for k, x in ((0, 90.0), (40, 28.0), (60, 29.0), (80, 30.0))]
    assert score(rows, "judge") == pytest.approx(29.0)
    rows[-1]["judge"] = math.nan
    assert score(rows, "judge") == -math.inf
    assert score([], "judge") == -math.inf


def test_a_learned_reward_is_judged_by_another_one() -> None:
    assert TRACK_A.judge not in (TRACK_A.target.label, "ExactCheck")
    assert TRACK_A.judge in [label for label, _ in TRACK_A.gold]
    assert TRACK_B.judge == TRACK_B.target.label == "ExactCheck"


@pytest.mark.parametrize(
    ("best", "further"),
    [("1.0e-4", "3.0e-5"), ("1.0e-2", "3.0e-2"), ("3.0e-4", None), ("1.0e-3", None)],
)
def test_a_best_value_at_the_edge_extends_the_grid(best: str, further: str | None) -> None:
    assert extension(RATES, best) == further
    assert extension(("3.0e-1", "1.0e0"), "3.0e-1") == "1.0e-1"
    assert extension(("1.0e0", "3.0e0"), "3.0e0") == "1.0e1"


def test_extensions_end_inside_or_after_their_largest_number() -> None:
    inside = Tries.of(METHOD, tries(1, 2, 3, 2, 1))
    assert (inside.grid, inside.finalists) == (RATES, [RATES[2], RATES[1]])
    rising = tries(1, 2, 3, 4, 5)
    asked = Tries.of(METHOD, rising)
    assert (asked.grid, asked.finalists) == ((*RATES, "3.0e-2"), [])
    assert Tries.of(METHOD, {**rising, "3.0e-2": 4.0}).finalists == ["1.0e-2", "3.0e-3"]
    last = Tries.of(METHOD, {**rising, "3.0e-2": 6.0, "1.0e-1": 7.0})
    assert (len(last.grid), last.finalists[0]) == (5 + EXTENSIONS, "1.0e-1")


def test_a_missing_try_leaves_the_selection_open() -> None:
    assert Tries.of(METHOD, tries(1, 2, 3, 2)).finalists == []


def test_measured_tries_extend_the_plan(setting) -> None:
    experiment = BoardTuningA()
    for run in [run for run in experiment.runs(setting, ()) if run.key["method"] == "DDPO"]:
        value = float(run.key["value"])
        Results.of(setting, experiment.name).add(run, [{"update": 80.0, TRACK_A.judge: -value}], {})
    values = [run.key["value"] for run in experiment.runs(setting, ()) if run.key["method"] == "DDPO"]
    assert values == ["3.0e-5", *RATES]
    table, _ = experiment.report(Results.of(setting, experiment.name).rows(experiment.runs(setting, ())))
    (line,) = table.rows
    assert (line[0], line[-2:]) == ("DDPO", ("0.0001 (at the edge), 0.0003", "5"))


def test_other_settings_have_no_board() -> None:
    with pytest.raises(ValueError, match="use --setting tiny"):
        BoardTuningA().runs(replace(SD14), ())
