"""What was measured stays measured: whatever fails, is killed or changes."""

import pytest

from experiments.base import Run
from experiments.results import PROVENANCE, Results
from tests.experiments.toy import Toy


def test_a_run_that_raises_loses_no_row_and_is_the_only_one_measured_again(run, results) -> None:
    Toy.broken = {"A1"}
    assert run("--seeds", "0", "1") == 1
    assert Toy.measured_runs == ["A0", "B0", "A1", "B1"]
    assert {(line["method"], line["seed"]) for line in results.lines} == {("A", "0"), ("B", "0"), ("B", "1")}
    Toy.broken, Toy.measured_runs = set(), []
    assert run("--seeds", "0", "1") == 0
    assert Toy.measured_runs == ["A1"]


def test_a_killed_run_goes_on_where_it_was(run, results, monkeypatch) -> None:
    def killed(self, title: str, seed: int):
        if title == "A1":
            raise KeyboardInterrupt
        return [{"value": 1.0}]

    with monkeypatch.context() as patched:
        patched.setattr(Toy, "_measure", killed)
        with pytest.raises(KeyboardInterrupt):
            run("--seeds", "0", "1")
    assert len(results.lines) == 2
    assert run("--seeds", "0", "1") == 0
    assert Toy.measured_runs == ["A1", "B1"]


def test_rows_of_another_command_are_stated_and_replaced(run, results, caplog) -> None:
    run("--seeds", "1")
    Toy.factor, Toy.measured_runs = 20, []
    with caplog.at_level("INFO", "experiments"):
        assert run("--seeds", "1", "--only", "method=A") == 0
    assert "method=A seed=1 has rows of another command" in caplog.text
    assert Toy.measured_runs == ["A1"]
    # those of B are still there, and out of the page
    assert [line["value"] for line in results.lines] == ["10.0", "11.0", "20.0", "21.0"]
    assert "1 of 2 runs are measured" in (results.path.parent / "toy.md").read_text()


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
    assert head == ["method", "seed", "update", "value", *PROVENANCE]
    (row, _) = results.rows(Toy().runs(None, [3]))
    assert (row["method"], row["value"], row["command"], row["threads"]) == (
        "B",
        30.0,
        "10 × seed",
        float(row["threads"]),
    )


def test_texts_that_look_like_numbers_stay_texts(tmp_path) -> None:
    results, run = Results(tmp_path / "x.csv"), Run({"method": "1e5"}, "command, with a comma", list)
    results.add(run, [{"value": 2}], {"commit": "12e456789012"})
    (row,) = results.rows([run])
    assert row == {"method": "1e5", "value": 2.0, "command": "command, with a comma", "commit": "12e456789012"}


def test_a_run_without_rows_is_a_mistake(tmp_path) -> None:
    with pytest.raises(ValueError, match="returned no row"):
        Results(tmp_path / "x.csv").add(Run({"a": 1}, "", list), [], {})


def test_a_file_of_other_runs_is_not_written_over(tmp_path) -> None:
    results = Results(tmp_path / "x.csv")
    results.add(Run({"a": 1}, "", list), [{"value": 1}], {})
    with pytest.raises(ValueError, match="of another version"):
        results.add(Run({"b": 1}, "", list), [{"value": 1}], {})


def test_listing_measures_nothing(run, caplog) -> None:
    run("--seeds", "0")
    Toy.measured_runs = []
    with caplog.at_level("INFO", "experiments"):
        caplog.clear()
        assert run("--seeds", "0", "1", "--list") == 0
    assert Toy.measured_runs == []
    assert [line.split()[0] for line in caplog.messages] == ["measured", "measured", "missing", "missing"]


def test_again_measures_the_chosen_runs_in_the_place_of_their_rows(run, results) -> None:
    run("--seeds", "1")
    before, Toy.measured_runs = results.lines, []
    assert run("--seeds", "1", "--only", "method=A") == 0
    assert Toy.measured_runs == []
    assert run("--seeds", "1", "--only", "method=A", "--again") == 0
    assert Toy.measured_runs == ["A1"]
    values = {(line["method"], line["value"]) for line in results.lines}
    assert len(results.lines) == len(before) == 4
    assert values == {(line["method"], line["value"]) for line in before}
