"""What the board would run, and what it reports."""

import json
import shlex

import pytest
import yaml

from experiments.base import Figure, Row, Table
from experiments.board.board import BoardA, BoardB, BoardFlow, BoardLong
from experiments.board.finals import BoardFinalsA
from experiments.board.report import Board
from experiments.board.tracks import TRACK_A, TRACK_B, points
from experiments.cli import SEEDS
from experiments.methods import RATES, Method
from experiments.page import Page
from experiments.settings import ROOT
from tests.experiments.tuned import tune


@pytest.mark.parametrize("board", [BoardA, BoardB, BoardFlow])
def test_commands_parse_and_have_equal_samples(board, setting, printed) -> None:
    tune(setting, board.finals, RATES[2])
    track, runs = board.track, board().runs(setting, SEEDS)
    assert [run.key["seed"] for run in runs] == sorted(run.key["seed"] for run in runs)
    assert len(runs) == len({run.title for run in runs}) == len(SEEDS) * len(board().methods())
    samplers = set()
    for run, method in zip(runs, board().methods(), strict=False):
        config = printed(shlex.split(run.command)[2:])
        model, data, trainer = (config[name] for name in ("model", "data", "trainer"))
        model, data = model["init_args"], data["init_args"]
        rounds = model["estimator"]["init_args"].get("num_minibatches", 1)
        assert method.samples == data["batch_size"] * model["optimization"]["accumulate"] / rounds, method.name
        assert method.updates_per_round == rounds
        assert trainer["max_steps"] * method.samples == track.samples
        assert model["sampler"]["init_args"]["steps"] == 10
        assert model["model"]["class_path"].endswith(f".{track.model}"), "no guidance"
        samplers.add(json.dumps(model["sampler"], sort_keys=True))
        assert model["reward"]["class_path"].endswith(track.target.name)
        assert not model["reward"].get("init_args", {}).get("partial")
        assert (model["optimization"]["lr"], model["optimization"]["decay_steps"]) == (float(RATES[2]), 0)
        updates = trainer["callbacks"][-1]["init_args"]["updates"]
        assert updates == list(track.points(method))
        assert [u * method.samples for u in updates if not u % method.updates_per_round] == [
            u * method.samples for u in updates
        ]
    assert len(samplers) == 1, "the base model makes the same samples in all runs"


def test_a_method_has_runs_once_it_is_tuned(setting) -> None:
    assert BoardA().runs(setting, SEEDS) == []
    tune(setting, BoardFinalsA, RATES[2], "AlignProp")
    assert [run.title for run in BoardA().runs(setting, (0, 1))] == [
        "method=AlignProp seed=0",
        "method=AlignProp seed=1",
    ]


def test_the_long_chain_has_the_rates_of_the_short_one_and_one_seed(setting) -> None:
    tune(setting, BoardFinalsA, RATES[1])
    short = {str(run.key["method"]): run.command for run in BoardA().runs(setting, (0,))}
    long = {str(run.key["method"]): run.command for run in BoardLong().runs(setting, SEEDS)}
    assert set(long) == {"AlignProp", "DRaFT-2", "look-ahead RLR"}
    assert long == {
        name: short[name].replace("sampler.init_args.steps=10", "sampler.init_args.steps=20") for name in long
    }
    assert all(long[name] != short[name] for name in long)


def test_evaluations_follow_whole_rounds() -> None:
    one, round_of_four = Method("a", ""), Method("b", "", updates_per_round=4)
    assert points(one, range(400, 1601, 400)) == (25, 50, 75, 100)
    assert points(round_of_four, range(400, 1601, 400)) == (28, 52, 76, 100)
    with pytest.raises(ValueError, match="whole number of rounds"):
        points(round_of_four, [400, 1500])


def test_all_methods_are_evaluated_alike() -> None:
    board, tuning = (
        yaml.safe_load((ROOT / f"experiments/configs/{name}.yaml").read_text()) for name in ("board", "board_tuning")
    )
    ours, others = (config["trainer"]["callbacks"][-1]["init_args"] for config in (board, tuning))
    assert ours["metrics"] == others["metrics"] == ["TinyPickScore", "TinyHPSv2", "ExactCheck", "Diversity"]
    assert ours["samples"] == others["samples"] == 2


# ---------------------------------------------------------------- what is reported


def run_of(method: str, seed: int, slope: float, calls: int = 1) -> list[Row]:
    """The rows of a run whose reward rises by ``slope`` in 400 samples, with a second of CPU time for four samples."""
    return [
        {
            "method": method,
            "seed": float(seed),
            "update": 25.0 * k,
            "samples": 400.0 * k,
            "reward_calls": 400.0 * k * calls,
            "step_seconds": 100.0 * k,
            "TinyPickScore": 28 + slope * k,
            "ExactCheck": 0.6 + 0.01 * k,
            "TinyHPSv2 x100": 84.0,
            "diversity": 0.7 - 0.01 * k,
        }
        for k in range(9)
    ]


@pytest.fixture
def rows() -> list[Row]:
    fast = [row for seed in range(3) for row in run_of("fast", seed, 0.25 + 0.05 * (seed - 1), calls=2)]
    return [*fast, *(row for seed in range(3) for row in run_of("DDPO", seed, 0.05 + 0.01 * seed))]


def test_the_time_to_a_score_has_a_known_answer(rows) -> None:
    table = Board(TRACK_A, rows).time_to_score()
    fast, slow = table.rows
    # 28.5 is reached after 2.5, 2 and 5/3 evaluations: 1000, 800 and 666.7 samples
    assert fast[1].startswith("822 (")
    assert fast[2].startswith("1644 (")
    assert fast[3].startswith("206 (")
    # slopes of 0.05, 0.06 and 0.07 end with 28.4, 28.48 and 28.56
    assert slow[1:4] == ("1 of 3 runs reach it",) * 3
    assert fast[-2:] == ("4.00", "3")


def test_budgets_are_compared_at_the_same_cost(rows) -> None:
    board = Board(TRACK_A, rows)
    base, fast, slow = board.at_budget("samples", 3200.0).rows
    assert base == ("base", "28.00", "0.600", "84.00", "0.700", "–")
    assert fast[1].startswith("30.00 (")
    assert fast[2] == "0.680 (0.680 … 0.680)"
    _, by_calls, _ = board.at_budget("reward_calls", 3200.0).rows
    assert by_calls[1].startswith("29.00 (")
    _, by_seconds, slow = board.at_budget("step_seconds", 300.0).rows
    assert by_seconds[1].startswith("28.75 (")
    assert slow[1].startswith("28.18 (")


def test_differences_from_the_base_model_have_a_known_answer(rows) -> None:
    reward, check, judge, diversity = Board(TRACK_A, rows).differences()
    assert reward.head == ("method", *(str(400 * k) for k in range(1, 9)))
    # slopes of 0.2, 0.25 and 0.3 have the mean 0.25, those of DDPO 0.06
    assert [row[:3] for row in reward.rows] == [("fast", "+0.250", "+0.500"), ("DDPO", "+0.060", "+0.120")]
    assert check.rows[0][-1] == "+0.080"
    assert judge.rows[0][-1] == "+0.000"
    assert diversity.rows[0][-1] == "-0.080"
    short = Board(TRACK_A, [row for row in rows if row["samples"] < 3200]).differences()[0]
    assert short.rows[0][-2:] == ("+1.750", "–")


def test_shares_are_relative_to_the_reference(rows) -> None:
    (table,) = Board(TRACK_A, rows).shares()
    fast, itself = table.rows
    # DDPO ends with 28.48 after 3200 samples; the fast runs have it after 2.4, 1.92 and 1.6 evaluations
    mean = (2.4 + 1.92 + 1.6) * 400 / 3 / 3200
    assert fast[1].startswith(f"{mean:.2f} (")
    assert fast[2].startswith(f"{2 * mean:.2f} (")
    assert itself[1] == "2 of 3 runs reach it"


def test_the_page_has_tables_and_figures_of_any_number_of_runs(rows, tmp_path) -> None:
    for some in (rows, rows[:9], [row for row in rows if row["seed"] == 0]):
        shown = BoardA().report(some)
        assert sum(isinstance(item, Figure) for item in shown) == 2
        assert all(len(line) == len(item.head) for item in shown if isinstance(item, Table) for line in item.rows)
    for path in Page(BoardA(), "command", rows, (6, 6)).write(tmp_path):
        assert path.stat().st_size
    assert (
        BoardB()
        .report([{**row, "ExactCheck": 0.6} for row in rows])[0]
        .title.startswith("Cost of a held-out ExactCheck of 0.63")
    )
    assert TRACK_B.gain == 0.03
