"""Pages and tables of runs, from the files that a run leaves."""

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import rlr
from rlr.cli import main
from rlr.records.comparison import write_comparison
from rlr.records.groups import differing, grouped
from rlr.records.paired import differences
from rlr.records.record import Record
from rlr.records.run_page import write_page
from tests.records.folders import BASE, PROMPTS, evaluation, run_folder

ROOT = Path(__file__).parents[2]
VOID = {"meta", "link", "img", "br", "input", "path", "source"}


class Structure(HTMLParser):
    """The elements of a page; every one that is opened must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def addresses(self) -> set[str]:
        """What the elements refer to."""
        names = ("src", "href", "srcset", "data", "action", "poster")
        return {value for _, attributes in self.tags for name in names if (value := attributes.get(name))}


def page_of(folder):
    text = write_page(folder).read_text()
    return text, Structure(text)


# ---------------------------------------------------------------- the page of a run


def test_a_page_holds_everything_and_asks_for_nothing(tmp_path):
    text, structure = page_of(run_folder(tmp_path / "mine"))
    assert all(address.startswith("data:") for address in structure.addresses())
    assert "http" not in text
    assert "@import" not in text
    counts = {tag: sum(t == tag for t, _ in structure.tags) for tag in ("img", "svg", "script", "table")}
    assert counts == {"img": 8, "svg": 8, "script": 1, "table": 1}
    for stated in (
        "python train.py fit --config a.yaml",
        "HalfOrder on Tiny",
        "21.50",
        "23.00",
        "lr: 0.001",
        "last checkpoint",
    ):
        assert (stated in text) == (stated != "last checkpoint")


def test_prompts_and_configs_are_escaped(tmp_path):
    text, structure = page_of(run_folder(tmp_path / "mine", settings={"note": "<script>alert(1)</script>"}))
    assert "a blue circle &lt;b&gt;&amp;" in text
    assert "<b>" not in text
    assert sum(tag == "script" for tag, _ in structure.tags) == 1


@pytest.mark.parametrize("left", ["metrics.csv", "config.yaml", "evaluation"])
def test_an_interrupted_run_has_a_page_of_what_is_there(tmp_path, left):
    folder = run_folder(tmp_path / "mine", updates=7, planned=20)
    for name in {"metrics.csv", "config.yaml", "evaluation", "samples", "run.json"} - {left}:
        path = folder / name
        path.rename(tmp_path / name)
    page_of(folder)


def test_a_page_states_that_a_run_ended_early(tmp_path):
    assert "Ended after 7 of 20 updates." in page_of(run_folder(tmp_path / "mine", updates=7, planned=20))[0]
    assert "Ended after" not in page_of(run_folder(tmp_path / "whole", updates=20))[0]


def test_a_test_stands_before_the_evaluation_of_the_training(tmp_path):
    folder = run_folder(tmp_path / "mine")
    evaluation(folder, (10.0, 10.0, 10.0, 10.0), 20, "test")
    text = page_of(folder)[0]
    assert "Toy on Prompts (test): 21.50 before and 31.50 after 20 updates" in text


def test_the_same_folder_gives_the_same_page(tmp_path):
    folder = run_folder(tmp_path / "mine")
    assert write_page(folder).read_bytes() == write_page(folder).read_bytes()


def test_rows_without_updates_have_those_of_the_row_before(tmp_path):
    """Of an older file, and of validations, which lie between two updates."""
    (tmp_path / "metrics.csv").write_text("step,updates,reward/mean,val/reward\n0,2,1.0,\n0,,,5.0\n1,4,2.0,\n")
    record = Record(tmp_path)
    assert (record.series("val/reward").at, record.series("reward/mean").at, record.updates) == ((2.0,), (2.0, 4.0), 4)
    (tmp_path / "metrics.csv").write_text("step,reward/mean\n0,1.0\n1,nan\n2,3.0\n")
    assert Record(tmp_path).series("reward/mean").finite().at == (1.0, 3.0)


# ---------------------------------------------------------------- the command line


def test_pages_and_comparisons_import_no_torch(tmp_path):
    run_folder(tmp_path / "a")
    run_folder(tmp_path / "b", lr=1.0)
    code = (
        "import sys\nimport rlr\nfrom rlr.cli import main\nmain(['page', 'a', 'b'])\nmain(['compare', '?'])\nrlr.runs('?')\n"
        "assert not {'torch', 'lightning', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        *("a/index.html", "b/index.html"),
        *(f"comparison/{name}" for name in ("index.html", "runs.csv", "curves.csv", "differences.csv")),
    ]


@pytest.mark.parametrize(
    ("arguments", "stated"),
    [
        (
            ["page", "none"],
            "none: expected the folder of a run, with config.yaml, metrics.csv or an evaluation, found no such folder",
        ),
        (["page", "empty"], "found none of them"),
        (["compare", "mine"], "compare: expected two runs or more, found 1 (mine); name another one"),
        (["page", "torn"], "torn/run.json"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, stated):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLR_TRACEBACK", raising=False)
    run_folder(tmp_path / "mine")
    run_folder(tmp_path / "torn")
    (tmp_path / "torn" / "run.json").write_text('{"commands": [')
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert stated in line


# ---------------------------------------------------------------- groups and differences


def test_runs_that_differ_only_in_seeds_and_places_are_one_group(tmp_path):
    folders = [run_folder(tmp_path / f"low-seed{seed}", seed=seed) for seed in (0, 1)]
    folders.append(run_folder(tmp_path / "high", lr=0.1))
    groups = grouped([Record(folder) for folder in folders])
    assert [(group.name, len(group.records)) for group in groups] == [("low", 2), ("high", 1)]
    assert differing(groups) == {"model.optimization.lr": ["0.001", "0.1"]}


def test_differences_are_paired_by_prompt_and_noise(tmp_path):
    """Of gains that differ by exactly 2 on each prompt, whose scores themselves differ by up to 8."""
    gains = ((1.0, 2.0, -1.0, 4.0), (3.0, 4.0, 1.0, 6.0))
    groups = grouped([Record(run_folder(tmp_path / f"r{k}", lr=k + 1.0, gain=gain)) for k, gain in enumerate(gains)])
    found = {one.key[2]: one for one in differences(groups)}
    toy = found["Toy"]
    assert (toy.value.base, toy.value.aligned, toy.value.difference) == (23.0, 25.0, 2.0)
    assert (toy.value.low, toy.value.high, toy.prompts, toy.same_base) == (2.0, 2.0, 4, True)
    assert np.isnan(toy.seed_error)


def test_the_mean_over_seeds_is_compared(tmp_path):
    low = [run_folder(tmp_path / f"low{s}", seed=s, gain=(g,) * 4) for s, g in ((0, 0.0), (1, 2.0))]
    high = [run_folder(tmp_path / f"high{s}", seed=s, lr=0.1, gain=(g,) * 4) for s, g in ((0, 5.0), (1, 9.0))]
    (toy,) = (d for d in differences(grouped([Record(f) for f in [*low, *high]])) if d.key[2] == "Toy")
    assert toy.value.difference == 6.0
    # of 0, 2 and of 5, 9: standard errors 1 and 2
    assert toy.seed_error == pytest.approx(5**0.5)


@pytest.mark.parametrize("changed", ["seed", "prompts", "samples"])
def test_other_prompts_or_noises_are_not_paired(tmp_path, changed):
    folders = [run_folder(tmp_path / name, lr=lr) for name, lr in (("a", 1.0), ("b", 2.0))]
    assert len(list(differences(grouped(list(map(Record, folders)))))) == 2
    file = folders[1] / "evaluation" / "fit" / "results.json"
    content = json.loads(file.read_text())
    if changed == "seed":
        content["seed"] = 1
    elif changed == "prompts":
        content["sets"]["Prompts"]["prompts"][0] = "another"
    else:
        content["sets"]["Prompts"]["scores"] = {label: [[1.0, 2.0]] * 4 for label in ("Toy", "diversity")}
    file.write_text(json.dumps(content))
    assert list(differences(grouped(list(map(Record, folders))))) == []


def test_another_base_model_is_marked(tmp_path):
    folders = [run_folder(tmp_path / name, lr=lr) for name, lr in (("a", 1.0), ("b", 2.0))]
    file = folders[1] / "evaluation" / "fit" / "results.json"
    content = json.loads(file.read_text())
    content["sets"]["Prompts"]["base_scores"]["Toy"] = [[x[0] + 1] for x in BASE]
    file.write_text(json.dumps(content))
    assert [d.same_base for d in differences(grouped(list(map(Record, folders))))] == [False, True]
    text = write_comparison(folders, tmp_path / "out")[0].read_text()
    assert "b: Toy · Prompts (fit) ≠" in text


def test_a_comparison_is_a_page_and_three_tables(tmp_path):
    folders = [
        run_folder(tmp_path / name, seed=s, lr=lr) for name, s, lr in (("a0", 0, 1.0), ("a1", 1, 1.0), ("b", 0, 2.0))
    ]
    page, *tables = write_comparison(folders, tmp_path / "out")
    structure = Structure(page.read_text())
    assert all(address.startswith("data:") for address in structure.addresses())
    # base, and both groups, of four prompts
    assert sum(tag == "img" for tag, _ in structure.tags) == 12
    rows = [list(csv.DictReader(table.open())) for table in tables]
    assert [row["name"] for row in rows[0]] == ["a0", "a1", "b"]
    assert {row["run"] for row in rows[1]} == {"a0", "a1", "b"}
    assert {row["measurement"]: float(row["difference"]) for row in rows[2]} == {"Toy": 0.0, "diversity": 0.0}
    assert len([row for row in rows[1] if row["curve"] == "Reward on training prompts"]) == 60


# ---------------------------------------------------------------- rlr.runs


def test_runs_are_a_list_of_dictionaries(tmp_path):
    for name, lr in (("a", 1.0), ("b", 2.0)):
        run_folder(tmp_path / name, lr=lr)
    (tmp_path / "no_run").mkdir()
    table = rlr.runs(f"{tmp_path}/*")
    assert [(row["name"], row["updates"], row["config/model.optimization.lr"]) for row in table] == [
        ("a", 20, 1.0),
        ("b", 20, 2.0),
    ]
    assert table[0]["fit/Prompts/Toy"] == 23.0
    assert table[0]["fit/Prompts/Toy_difference"] == 1.5
    assert table[0]["reward_calls"] == 160
    read = list(csv.DictReader(table.csv().decode().splitlines()))
    assert list(read[0]) == table.columns


def test_a_table_of_runs_becomes_a_data_frame(tmp_path):
    pandas = pytest.importorskip("pandas")
    run_folder(tmp_path / "a")
    frame = rlr.runs([tmp_path / "a"]).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["updates"].tolist() == [20]


def test_without_pandas_the_error_says_what_to_do(tmp_path, monkeypatch):
    run_folder(tmp_path / "a")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("to_pandas needs pandas, which does not import")):
        rlr.runs(tmp_path / "a").to_pandas()


def test_prompts_of_the_fixture_are_different():
    assert len(set(PROMPTS)) == len(BASE)
