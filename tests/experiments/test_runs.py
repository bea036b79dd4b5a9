"""What every experiment would run: its commands parse, and its budgets are equal."""

import shlex
from collections.abc import Callable
from dataclasses import replace

import pytest
import yaml

from experiments.base import Figure, Row, Run, Table
from experiments.methods import RLR, TINY_METHODS, TINY_TARGETS, Method, Target, ablations, stable_diffusion
from experiments.page import Page
from experiments.paper.comparison import SAMPLES, SECONDS, START, Plan
from experiments.paper.cost import MEASURED, WARM, Cost, costs
from experiments.paper.figure3 import Figure3
from experiments.paper.figure4 import Figure4
from experiments.paper.table2 import Table2
from experiments.paper.table4 import Table4
from experiments.paper.table5 import Table5
from experiments.paper.tuning import RATES, SEED, Tuning, tuned
from experiments.paper.tuning import SAMPLES as TRIED
from experiments.registry import EXPERIMENTS
from experiments.results import Results
from experiments.settings import ROOT, SD14, TINY, VC2, Setting

SEEDS = (0, 1, 2)
COST = {method.name: 0.5 + 0.25 * k for k, method in enumerate(TINY_METHODS)}
"""Seconds an update, to compute with."""

SETS = [
    *((experiment, TINY) for experiment in (Cost, Tuning, Table2, Figure3, Table4, Table5)),
    *((experiment, SD14) for experiment in (Table2, Figure3, Table4, Table5)),
]


def name_of(value: object) -> str:
    return str(getattr(value, "name", value))


@pytest.fixture(scope="module")
def in_folder(tmp_path_factory) -> Callable[[Setting], Setting]:
    """Moves a setting to a folder with costs and tuned rates; of every method the rate in the middle is best."""
    folder = tmp_path_factory.mktemp("measured")

    def moved(setting: Setting) -> Setting:
        return replace(setting, results=folder / "results", runs=folder / "runs")

    tiny = moved(TINY)
    for run in Cost().runs(tiny, ()):
        Results.of(tiny, "cost").add(run, [{"step_seconds": COST[str(run.key["method"])]}], {})
    for run in Tuning().runs(tiny, ()):
        score = 2.0 if run.key["lr"] == RATES[1] else 1.0
        Results.of(tiny, "tuning").add(run, [{"samples": TRIED, "TinyPickScore": score}], {})
    return moved


def distinct(runs: list[Run]) -> list[Run]:
    """Of runs that differ in seed, reward or rate alone, the first."""
    found: dict[object, Run] = {}
    for run in runs:
        found.setdefault((run.key.get("model"), run.key.get("method")), run)
    return list(found.values())


def config_value(tree: dict, path: str) -> object:
    """What a config holds at a dotted path; of a class its short name."""
    for name in path.split("."):
        tree = tree[name] if name in tree else tree["init_args"][name]
    return tree["class_path"].split(".")[-1] if isinstance(tree, dict) else tree


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize(("experiment", "setting"), SETS, ids=name_of)
def test_commands_parse_with_every_argument_in_its_place(experiment, setting, in_folder, printed) -> None:
    for run in distinct(list(experiment().runs(in_folder(setting), SEEDS))):
        arguments = shlex.split(run.command)[2:]
        config = printed(arguments)
        for argument in arguments[3:]:
            path, given = argument.removeprefix("--").split("=")
            if not path.startswith("trainer.callbacks"):
                assert config_value(config, path) == yaml.safe_load(given) or config_value(config, path) == float(
                    given
                ), run.command
        points = config["trainer"]["callbacks"][-1]["init_args"]["updates"]
        assert points == sorted(points)
        assert points[-1] == config["trainer"]["max_steps"]


def test_every_experiment_is_known_and_has_its_page_without_rows(in_folder, tmp_path) -> None:
    assert {experiment.name for experiment in EXPERIMENTS} >= {e.name for e, _ in SETS} | {"figure4"}
    for experiment in EXPERIMENTS:
        Page(experiment(), "command", [], (3, 0)).write(tmp_path)
        assert "0 of 3 runs" in (tmp_path / f"{experiment.name}.md").read_text()


def test_the_first_seed_of_all_runs_comes_first(in_folder) -> None:
    for experiment in (Table2, Figure3, Table4, Table5):
        seeds = [run.key["seed"] for run in experiment().runs(in_folder(TINY), SEEDS)]
        assert seeds == sorted(seeds)
        assert set(seeds) == set(SEEDS)


@pytest.mark.parametrize("experiment", [Table2, Table4, Cost, Tuning])
def test_a_setting_that_an_experiment_lacks_is_stated(experiment, in_folder) -> None:
    with pytest.raises(ValueError, match=r"vc2|alone"):
        experiment().runs(in_folder(VC2), SEEDS)


def test_no_two_runs_have_one_key(in_folder) -> None:
    for experiment, setting in SETS:
        keys = [run.title for run in experiment().runs(in_folder(setting), SEEDS)]
        assert len(keys) == len(set(keys))


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize("method", [*TINY_METHODS, *ablations(RLR), *stable_diffusion("sd14")], ids=name_of)
def test_a_method_says_how_many_samples_its_config_takes_an_update(method, printed) -> None:
    target = Target("", "", "aes") if "sd14" in method.config else TINY_TARGETS[1]
    with_reward = method.with_reward(target)
    config = printed(
        ["fit", f"--config={with_reward.config}", *(f"--{argument}" for argument in with_reward.overrides)]
    )
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    parts = model["estimator"]["init_args"].get("num_minibatches", 1)
    assert (method.samples, method.updates_per_round) == (
        data["batch_size"] * model["optimization"]["accumulate"] / parts,
        parts,
    )


@pytest.mark.parametrize("plan", [*Table2.plans.values(), *Table5.plans.values(), *Table4.plans.values()])
def test_equal_samples_are_equal(plan: Plan) -> None:
    for methods in plan.models.values():
        for method in methods:
            (updates,) = (u for u, mark in plan.budgets(method, COST | {method.name: 1.0}).items() if SAMPLES in mark)
            assert updates * method.samples == plan.samples
            assert updates % method.updates_per_round == 0


def test_equal_seconds_are_equal_to_half_a_round() -> None:
    plan = Table2.plans["tiny"]
    for method in TINY_METHODS:
        budgets = plan.budgets(method, COST)
        (updates,) = (u for u, mark in budgets.items() if SECONDS in mark)
        assert abs(updates * COST[method.name] - plan.seconds(COST)) <= COST[method.name] * method.updates_per_round / 2
        assert updates % method.updates_per_round == 0
        assert list(budgets) == sorted(budgets)


def test_one_update_may_be_the_end_of_both_budgets() -> None:
    method, reference = Method("m", ""), Method("r", "", samples=8)
    # eight updates of half a second
    plan = Plan({}, [], "", samples=64, every=32, rates=tuned(), reference=reference)
    assert plan.budgets(method, {"m": 1.0, "r": 0.5}) == {2: "curve", 4: "samples seconds"}
    assert plan.budgets(method, {"m": 0.5, "r": 0.5}) == {2: "curve", 4: "samples", 6: "curve", 8: "seconds"}
    assert plan.budgets(method, {"m": 2.0, "r": 0.5}) == {2: "seconds", 4: "samples"}


def test_a_budget_that_is_no_whole_round_is_refused() -> None:
    method = Method("DDPO", "", samples=16, updates_per_round=4)
    assert method.updates(128) == 8
    for samples in (96, 100, 0):
        with pytest.raises(ValueError, match="whole number of rounds"):
            method.updates(samples)


# ---------------------------------------------------------------- tuning and cost


def prompts_of(evaluation: str) -> dict:
    """The settings of the only set of prompts of an evaluation."""
    callback = yaml.safe_load((ROOT / evaluation).read_text())["trainer"]["callbacks"][-1]
    (prompts,) = callback["init_args"]["prompts"].values()
    return prompts["init_args"]


def test_every_method_has_as_many_tries_on_prompts_and_a_seed_of_their_own(in_folder) -> None:
    runs = Tuning().runs(in_folder(TINY), SEEDS)
    tries = {name: [c.key["lr"] for c in runs if c.key["method"] == name] for name in {c.key["method"] for c in runs}}
    assert all(sorted(found) == sorted(RATES) for found in tries.values())
    assert SEED not in SEEDS
    held_out, validation = (prompts_of(f"experiments/configs/{name}.yaml") for name in ("tiny", "tiny_validation"))
    assert held_out["seed"] != validation["seed"]
    assert all("tiny_validation.yaml" in run.command for run in runs)


def test_the_best_rate_of_each_method_is_taken(in_folder) -> None:
    for run in Table2().runs(in_folder(TINY), (0,)):
        assert f"--model.init_args.optimization.lr={RATES[1]}" in run.command
    for run in Figure3().runs(in_folder(TINY), (0,)):
        assert f"--model.init_args.optimization.lr={RATES[1]}" in run.command


def test_without_costs_or_rates_one_sentence_says_what_to_run(in_folder, tmp_path) -> None:
    empty = replace(TINY, results=tmp_path)
    with pytest.raises(ValueError, match=r"run\.py cost --setting tiny"):
        costs(empty)
    with pytest.raises(ValueError, match=r"run\.py tuning --setting tiny"):
        Table5().runs(empty, (0,))


def test_a_cost_is_a_difference_over_the_measured_updates() -> None:
    early: Row = {"update": float(WARM), "step_seconds": 9.0, "samples": 64.0, "reward_calls": 192.0}
    late: Row = {"update": float(MEASURED), "step_seconds": 17.0, "samples": 320.0, "reward_calls": 960.0}
    assert Cost()._row([early, late]) == {"step_seconds": 8 / (MEASURED - WARM), "samples": 16, "reward_calls": 48}


# ---------------------------------------------------------------- what is shown


def run_of(method: str, seed: int, gain: float) -> list[Row]:
    """The rows of a run that gains ``gain`` an update."""
    marks = {0: START, 2: "curve", 4: f"{SAMPLES} {SECONDS}"}
    common: Row = {"model": "Tiny", "reward": "R", "method": method, "seed": str(seed), "prompts": "held_out"}
    return [
        {
            **common,
            "at": mark,
            "update": float(u),
            "reward_calls": 16.0 * u,
            "step_seconds": float(u),
            "proxy": 10 + gain * u,
            "proxy gain": gain * u,
            "R": 10 + gain * u,
            "R gain": gain * u,
            "ExactCheck": 0.5,
            "ExactCheck gain": 0.0,
        }
        for u, mark in marks.items()
    ]


@pytest.fixture
def rows() -> list[Row]:
    return [
        row
        for seed in SEEDS
        for name, gain in (("A", 1.0), ("B", 2.0))
        for row in run_of(name, seed, gain + 0.1 * seed)
    ]


def test_tables_show_base_methods_and_means_over_seeds(rows) -> None:
    overview, details, *_ = Table2().report(rows)
    assert isinstance(overview, Table)
    assert isinstance(details, Table)
    # 4, 4.4 and 4.8 above 10: standard error 0.4 / √3
    assert list(overview.rows) == [
        ("Tiny", "base", "10.00"),
        ("Tiny", "A", "14.40 ± 0.23"),
        ("Tiny", "B", "18.40 ± 0.23"),
    ]
    assert [line[-1] for line in details.rows] == ["–", "3", "3"]
    assert {len(line) for line in details.rows} == {len(details.head)}


def test_figures_are_drawn_from_rows_of_any_number_of_seeds(rows, tmp_path) -> None:
    for some in (rows, rows[:3], rows[:1]):
        for experiment in (Figure3(), Figure4()):
            figures = [item for item in experiment.report(some) if isinstance(item, Figure)]
            assert len(figures) == 1
    Page(Figure4(), "command", rows, (6, 6)).write(tmp_path)
    assert (tmp_path / "figure4.png").stat().st_size < 150_000


def test_the_table_of_stages_has_the_papers_four_rows() -> None:
    rows = [row for name in ("RLR without DCoT", "RLR-DCoT") for row in run_of(name, 0, 1.0)]
    (table,) = Table4().report(rows)
    assert [line[0] for line in table.rows] == ["base", "base, DCoT", "RLR without DCoT", "RLR-DCoT"]


def test_figure_4_has_the_runs_of_table_2(in_folder) -> None:
    setting = in_folder(TINY)
    assert [c.command for c in Figure4().runs(setting, SEEDS)] == [c.command for c in Table2().runs(setting, SEEDS)]
    assert Figure4.source == Table2.name
