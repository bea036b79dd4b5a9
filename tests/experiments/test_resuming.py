"""What was measured stays measured: whatever fails, is killed or changes."""

import pytest

from experiments.base import Cell
from experiments.results import FACTS, Results
from tests.experiments.toy import Toy


def test_a_cell_that_raises_loses_no_row_and_is_the_only_one_measured_again(run, results) -> None:
    Toy.broken = {"A1"}
    assert run("--seeds", "0", "1") == 1
    assert Toy.worked == ["A0", "B0", "A1", "B1"]
    assert {(line["method"], line["seed"]) for line in results.lines} == {("A", "0"), ("B", "0"), ("B", "1")}
    Toy.broken, Toy.worked = set(), []
    assert run("--seeds", "0", "1") == 0
    assert Toy.worked == ["A1"]


def test_a_killed_run_goes_on_where_it_was(run, results, monkeypatch) -> None:
    def killed(self, title: str, seed: int):
        if title == "A1":
            raise KeyboardInterrupt
        return [{"value": 1.0}]

    with monkeypatch.context() as patched:
        patched.setattr(Toy, "_work", killed)
        with pytest.raises(KeyboardInterrupt):
            run("--seeds", "0", "1")
    assert len(results.lines) == 2
    assert run("--seeds", "0", "1") == 0
    assert Toy.worked == ["A1", "B1"]


def test_rows_of_another_recipe_are_stated_and_replaced(run, results, caplog) -> None:
    run("--seeds", "1")
    Toy.factor, Toy.worked = 20, []
    with caplog.at_level("INFO", "experiments"):
        assert run("--seeds", "1", "--only", "method=A") == 0
    assert "method=A seed=1 has rows of another recipe" in caplog.text
    assert Toy.worked == ["A1"]
    # those of B are still there, and out of the page
    assert [line["value"] for line in results.lines] == ["10.0", "11.0", "20.0", "21.0"]
    assert "1 of 2 cells are measured" in (results.path.parent / "toy.md").read_text()


def test_nothing_is_written_when_the_file_cannot_be_replaced(run, results, monkeypatch) -> None:
    run("--seeds", "0")
    before = results.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("rlr.io.atomic.os.replace", full)
    with pytest.raises(OSError, match="no space"):
        run("--seeds", "0", "1")
    assert results.path.read_bytes() == before
    assert [path.name for path in results.path.parent.glob("*.part")] == []


def test_a_line_has_its_key_its_numbers_and_what_made_it(run, results) -> None:
    run("--seeds", "3", "--only", "method=B")
    head = results.path.read_text().splitlines()[0].split(",")
    assert head == ["method", "seed", "update", "value", *FACTS]
    (row, _) = results.rows(Toy().cells(None, [3]))
    assert (row["method"], row["value"], row["recipe"], row["threads"]) == (
        "B",
        30.0,
        "10 × seed",
        float(row["threads"]),
    )


def test_texts_that_look_like_numbers_stay_texts(tmp_path) -> None:
    results, cell = Results(tmp_path / "x.csv"), Cell({"method": "1e5"}, "recipe, with a comma", list)
    results.add(cell, [{"value": 2}], {"commit": "12e456789012"})
    (row,) = results.rows([cell])
    assert row == {"method": "1e5", "value": 2.0, "recipe": "recipe, with a comma", "commit": "12e456789012"}


def test_a_cell_without_rows_is_a_mistake(tmp_path) -> None:
    with pytest.raises(ValueError, match="returned no row"):
        Results(tmp_path / "x.csv").add(Cell({"a": 1}, "", list), [], {})


def test_a_file_of_other_cells_is_not_written_over(tmp_path) -> None:
    results = Results(tmp_path / "x.csv")
    results.add(Cell({"a": 1}, "", list), [{"value": 1}], {})
    with pytest.raises(ValueError, match="of another version"):
        results.add(Cell({"b": 1}, "", list), [{"value": 1}], {})


def test_listing_measures_nothing(run, caplog) -> None:
    run("--seeds", "0")
    Toy.worked = []
    with caplog.at_level("INFO", "experiments"):
        caplog.clear()
        assert run("--seeds", "0", "1", "--list") == 0
    assert Toy.worked == []
    assert [line.split()[0] for line in caplog.messages] == ["measured", "measured", "missing", "missing"]


def test_again_measures_the_chosen_cells_in_the_place_of_their_rows(run, results) -> None:
    run("--seeds", "1")
    before, Toy.worked = results.lines, []
    assert run("--seeds", "1", "--only", "method=A") == 0
    assert Toy.worked == []
    assert run("--seeds", "1", "--only", "method=A", "--again") == 0
    assert Toy.worked == ["A1"]
    values = {(line["method"], line["value"]) for line in results.lines}
    assert len(results.lines) == len(before) == 4
    assert values == {(line["method"], line["value"]) for line in before}
