import math
from dataclasses import replace
from itertools import permutations

import pytest

from experiments.base import Row
from experiments.cli import main
from experiments.page import Page
from experiments.settings import SD14
from experiments.summary import best, grouped, spread, standard_error
from tests.experiments.toy import Toy


def test_means_over_seeds_with_their_standard_errors() -> None:
    # 1, 2, 3: standard deviation 1
    assert spread([1.0, 2.0, 3.0]) == f"2.00 ± {1 / math.sqrt(3):.2f}"
    # what does not depend on the seed has no error
    assert (spread([-1.0], 1), spread([3.0, 3.0]), spread([])) == ("−1.0", "3.00", "–")
    assert standard_error([0.0, 2.0]) == pytest.approx(1.0)


def test_groups_keep_the_order_of_rows_and_leave_out_incomplete_ones() -> None:
    rows = [{"a": "y", "n": 1.0}, {"a": "x", "n": 5.0}, {"n": 9.0}, {"a": "y", "n": 2.0}]
    assert {key: [row["n"] for row in group] for key, group in grouped(rows, "a").items()} == {
        ("y",): [1, 2],
        ("x",): [5],
    }
    assert best(rows, lambda group: sum(float(row["n"]) for row in group), "a") == ("x",)
    with pytest.raises(ValueError, match="no best one"):
        best([], len, "a")


def test_a_page_shows_command_means_drawing_and_the_papers_numbers(run, results) -> None:
    run("--seeds", "0", "2")
    folder = results.path.parent
    text = (folder / "toy.md").read_text()
    assert "python experiments/run.py toy --setting tiny --seeds 0 2" in text
    # 0, 1, 20 and 21
    assert f"10.5 ± {standard_error([0, 1, 20, 21]):.1f}" in text
    assert "In the paper: their numbers" in text
    assert "3.14159" in text
    assert "![Curve](toy.png)" in text
    assert (folder / "toy.png").read_bytes().startswith(b"\x89PNG")


def test_the_seconds_in_all_do_not_depend_on_the_order_of_the_runs() -> None:
    """Each order of another sum than the exact one loses a second, or two."""
    rows: list[Row] = [{"date": date, "seconds": seconds} for date, seconds in (("a", 1e16), ("b", 1.0), ("c", 1.0))]
    for order in permutations(rows):
        assert "10000000000000002 s in all" in Page(Toy(), "command", order, (3, 3)).state


def test_the_page_for_browsers_needs_no_other_file(run, results) -> None:
    run("--seeds", "0")
    text = (results.path.parent / "toy.html").read_text()
    assert "data:image/png;base64," in text
    assert "http" not in text
    assert "A &lt;toy&gt;" in text


def test_the_same_rows_give_the_same_drawing(run, results) -> None:
    run("--seeds", "0")
    before = (results.path.parent / "toy.png").read_bytes()
    run("--seeds", "0")
    assert (results.path.parent / "toy.png").read_bytes() == before


def test_seeds_of_earlier_calls_stay_on_the_page(run, results) -> None:
    run("--seeds", "0")
    run("--seeds", "1")
    assert "4 of 4 runs are measured" in (results.path.parent / "toy.md").read_text()


def test_without_a_gpu_a_large_set_is_refused_in_one_sentence(setting, tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    large = replace(SD14, results=tmp_path)
    assert main(["toy", "--setting", "sd14"], experiments=(Toy,), settings={"sd14": large, "tiny": setting}) == 1
    assert "needs a GPU" in caplog.text
    assert caplog.text.count("\n") == 1


def test_without_weights_a_large_set_says_what_to_fetch(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("experiments.settings._cached", lambda folder: False)
    assert "hf download CompVis/stable-diffusion-v1-4" in str(SD14.missing())
