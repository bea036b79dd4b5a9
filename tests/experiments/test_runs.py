"""What every experiment would run: its commands parse, and its budgets are equal."""

import shlex
from collections.abc import Callable
from dataclasses import replace

import pytest
import yaml
from matplotlib.figure import Figure as Canvas

from experiments.base import Figure, Row, Run, Table
from experiments.board.board import BoardA
from experiments.board.finals import BoardFinalsA
from experiments.board.held_out_curves import at_equal_seconds
from experiments.board.methods import ABLATIONS, ENTRIES, RATIOS, TRUNCATIONS
from experiments.board.tracks import TRACK_A
from experiments.board.tuning import BoardTuningA
from experiments.marks import CURVE, SAMPLES, SECONDS, START, at
from experiments.methods import RATES, Method, Target, stable_diffusion
from experiments.page import Page
from experiments.paper.comparison import Plan
from experiments.paper.figure3 import Figure3
from experiments.paper.figure4 import Figure4
from experiments.paper.table2 import Table2
from experiments.paper.table4 import Table4
from experiments.paper.table5 import Table5
from experiments.registry import EXPERIMENTS
from experiments.reporting import curves
from experiments.settings import SD14, TINY, VC2, Setting
from experiments.training import Training
from tests.experiments.tuned import tune

SEEDS = (0, 1, 2)
SETS = [
    *((experiment, TINY) for experiment in (Table2, Figure3, Table4, Table5)),
    *((experiment, SD14) for experiment in (Table2, Figure3, Table4, Table5)),
]
ON_BOARD = (Table2, Figure3, Figure4, Table5)


def name_of(value: object) -> str:
    return str(getattr(value, "name", value))


@pytest.fixture(scope="module")
def in_folder(tmp_path_factory) -> Callable[[Setting], Setting]:
    """Moves a setting to a folder with tuned rates; of every method the rate in the middle is best."""
    folder = tmp_path_factory.mktemp("measured")

    def moved(setting: Setting) -> Setting:
        return replace(setting, results=folder / "results", runs=folder / "runs")

    tiny = moved(TINY)
    tune(tiny, BoardFinalsA, RATES[2])
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


@pytest.mark.parametrize("experiment", [Table2, Table4])
def test_a_setting_that_an_experiment_lacks_is_stated(experiment, in_folder) -> None:
    with pytest.raises(ValueError, match="vc2"):
        experiment().runs(in_folder(VC2), SEEDS)


def test_no_two_runs_have_one_key(in_folder) -> None:
    for experiment, setting in SETS:
        keys = [run.title for run in experiment().runs(in_folder(setting), SEEDS)]
        assert len(keys) == len(set(keys))


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize("method", stable_diffusion("sd14"), ids=name_of)
def test_a_method_says_how_many_samples_its_config_takes_an_update(method, printed) -> None:
    target = Target("", "", "aes")
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
            (updates,) = (u for u, mark in plan.budgets(method).items() if mark == SAMPLES)
            assert updates * method.samples == plan.samples
            assert updates % method.updates_per_round == 0


def test_the_seconds_of_the_shortest_run_are_the_budget_of_all(rows) -> None:
    """B costs twice the seconds of A, so its values are those of half its updates."""
    for row in rows:
        row["step_seconds"] = float(row["update"]) * (2.0 if row["method"] == "B" else 1.0)
    found = {(row["method"], row["seed"]): row for row in at_equal_seconds(rows)}
    assert len(found) == 6
    for (method, seed), row in found.items():
        assert row["at"] == SECONDS
        assert (row["step_seconds"], row["update"]) == (4.0, 4.0 if method == "A" else 2.0)
        gain = {"A": 1.0, "B": 2.0}[method] + 0.1 * int(seed)
        assert row["proxy"] == pytest.approx(10 + gain * row["update"])
    assert at_equal_seconds([]) == []


def test_a_budget_that_is_no_whole_round_is_refused() -> None:
    method = Method("DDPO", "", samples=16, updates_per_round=4)
    assert method.updates(128) == 8
    for samples in (96, 100, 0):
        with pytest.raises(ValueError, match="whole number of rounds"):
            method.updates(samples)


# ---------------------------------------------------------------- the board


@pytest.mark.parametrize("experiment", ON_BOARD)
def test_the_runs_on_the_built_in_model_are_those_of_the_board(experiment, in_folder) -> None:
    setting = in_folder(TINY)
    board = {run.title: run.command for run in BoardA().runs(setting, SEEDS)}
    runs = experiment().runs(setting, SEEDS)
    assert {run.key["method"] for run in runs} == set(experiment.board)
    assert all(board[run.title] == run.command for run in runs)
    assert experiment().source(setting) == BoardA.name
    assert experiment().source(SD14) == experiment.name


@pytest.mark.parametrize(
    ("experiment", "parts"),
    [
        (Figure3, {"DRaFT-2": TRUNCATIONS}),
        (Table5, {"RLR (paper)": ABLATIONS, "look-ahead RLR": RATIOS, "DRaFT-2": ()}),
    ],
)
def test_parts_have_the_rate_of_the_whole_and_no_tries(experiment, parts, tmp_path) -> None:
    setting = replace(TINY, results=tmp_path)
    tried = {run.key["method"] for run in BoardTuningA().runs(setting, SEEDS)}
    assert set(experiment.board) & tried == set(parts)
    rates = {}
    # the best value is not at the edge of its grid, which asks for more tries
    for rate, (whole, names) in zip(RATES[1:-1], parts.items(), strict=False):
        tune(setting, BoardFinalsA, rate, whole)
        rates |= dict.fromkeys((whole, *names), rate)
    runs = experiment().runs(setting, (0,))
    assert {run.key["method"] for run in runs} == set(experiment.board) == set(rates)
    assert all(f"--model.init_args.optimization.lr={rates[run.key['method']]}" in run.command for run in runs)


@pytest.mark.parametrize("experiment", ON_BOARD)
def test_tables_of_the_board_have_the_order_of_their_methods(experiment, in_folder) -> None:
    shuffled: list[Row] = [
        {"method": name, "update": 25.0, "step_seconds": 1.0} for name in sorted(experiment.board)[::-1]
    ]
    rows = experiment().prepared(in_folder(TINY), shuffled)
    assert [row["method"] for row in rows] == list(experiment.board)


def test_pages_of_the_board_leave_out_what_only_tables_need(rows) -> None:
    label = TRACK_A.target.label
    marked = [{**row, label: row["R"], "samples": 16.0 * float(row["update"])} for row in rows]
    hidden = [{**row, "method": entry.method.name} for row in marked for entry in ENTRIES if entry.ablation]
    for gold, _ in TRACK_A.gold:
        for row in (*marked, *hidden):
            row.update({gold: 0.5, "diversity": 0.6})
    tables = [item for item in BoardA().report([*marked, *hidden]) if isinstance(item, Table)]
    assert {line[0] for table in tables for line in table.rows} == {"base", "A", "B"}


def test_the_rows_of_the_board_say_where_they_are_measured(in_folder, monkeypatch) -> None:
    run = next(run for run in BoardA().runs(in_folder(TINY), (0,)) if run.key["method"] == "DRaFT-2")
    measured = [{"update": float(u), "TinyPickScore": 28.0} for u in (0, 25, 200)]
    monkeypatch.setattr(Training, "run", lambda *_: measured)
    rows = run.measure()
    assert [row["at"] for row in rows] == [START, CURVE, SAMPLES]
    assert {(row["model"], row["reward"], row["proxy"]) for row in rows} == {("Tiny", "TinyPickScore", 28.0)}
    assert len(at(rows, SAMPLES)) == 1


def test_without_rates_one_sentence_says_what_to_run(tmp_path) -> None:
    empty = replace(TINY, results=tmp_path)
    with pytest.raises(ValueError, match=r"experiments\.board\.queue board_tuning_a"):
        Table4().runs(empty, (0,))
    assert Table5().runs(empty, (0,)) == []


# ---------------------------------------------------------------- what is shown


def run_of(method: str, seed: int, gain: float) -> list[Row]:
    """The rows of a run that gains ``gain`` an update."""
    marks = {0: START, 2: CURVE, 4: SAMPLES}
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
    overview, details, _, *others = Table2().report(rows)
    titles = ["At equal seconds", "At equal seconds", "At equal seconds, differences"]
    assert [table.title.partition(":")[0] for table in others] == titles
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


def test_tables_show_differences_from_the_base_model_with_their_sign(rows) -> None:
    lost = [row for seed in SEEDS for row in run_of("C", seed, -1.0)]
    differences = Table2().report([*rows, *lost])[2]
    assert isinstance(differences, Table)
    assert differences.head == ("method", "R", "ExactCheck")
    assert list(differences.rows) == [
        ("A", "+4.40 ± 0.23", "+0.000"),
        ("B", "+8.40 ± 0.23", "+0.000"),
        ("C", "−4.00", "+0.000"),
    ]


def test_figures_are_drawn_from_rows_of_any_number_of_seeds(rows, tmp_path) -> None:
    for some in (rows, rows[:3], rows[:1]):
        for experiment in (Figure3(), Figure4()):
            figures = [item for item in experiment.report(some) if isinstance(item, Figure)]
            assert len(figures) == 1
    Page(Figure4(), "command", rows, (6, 6)).write(tmp_path)
    assert (tmp_path / "figure4.png").stat().st_size < 150_000


def test_the_curves_of_many_methods_differ() -> None:
    rows = [row for k in range(25) for row in run_of(f"method {k}", 0, float(k))]
    canvas = Canvas()
    curves(rows, [("update", "updates")], [("R", "R")], "title").draw(canvas)
    drawn = [(line.get_color(), line.get_linestyle()) for line in canvas.axes[0].lines]
    assert len(drawn) == len(set(drawn)) == 25


def test_the_table_of_stages_has_the_papers_four_rows() -> None:
    rows = [row for name in ("RLR without DCoT", "RLR-DCoT") for row in run_of(name, 0, 1.0)]
    (table,) = Table4().report(rows)
    assert [line[0] for line in table.rows] == ["base", "base, DCoT", "RLR without DCoT", "RLR-DCoT"]


def test_figure_4_has_the_runs_of_table_2(in_folder) -> None:
    setting = in_folder(TINY)
    assert [c.command for c in Figure4().runs(setting, SEEDS)] == [c.command for c in Table2().runs(setting, SEEDS)]
