"""The path of a held-out measurement against the trained reward."""

import csv
import re

import pytest

from rlr.evaluation.plots import Line, Trace
from rlr.evaluation.scales import Bounded, Level
from rlr.records.comparison import write_comparison
from rlr.records.gold import GOLD, gold_comparison, gold_plots
from rlr.records.record import Record
from rlr.records.run_page import write_page
from tests.records.folders import run_folder, write_rows


@pytest.fixture
def folder(tmp_path):
    return run_folder(tmp_path / "run")


def measure(folder, label: str, values: dict[int, float], prompts: str = "Prompts") -> None:
    """Adds a measurement to the history of a run."""
    file = folder / "evaluation" / "fit" / "history.csv"
    rows = list(csv.DictReader(file.open()))
    own = [{"update": u, "prompts": prompts, "measurement": label, "aligned": v} for u, v in values.items()]
    write_rows(file, [*rows, *own])


def test_gold_is_drawn_against_the_trained_reward_of_the_same_prompts(folder):
    measure(folder, "Toy", {10: 22.5})
    measure(folder, "Other", {20: 0.3, 0: 0.5, 10: 0.7, 15: 0.9})
    traces = {trace.lines[0].name: trace for trace in gold_plots(Record(folder))}
    line = traces["Other"].lines[0]
    # from 21.5 by 1.5 in all; there is no reward after 15 updates
    assert (line.at, line.values) == ([21.5, 22.5, 23.0], [0.5, 0.7, 0.3])
    assert line.moments == [0, 10, 20]
    assert traces["Other"].title == "Other against the trained reward, held-out prompts (Prompts)"
    assert (
        "from update 0 to 20. Other is highest after update 10 (0.7), and lowest after 20 (0.3)."
        in traces["Other"].note
    )


def test_without_it_the_reward_is_that_of_the_training_batches(folder):
    measure(folder, "Other", {0: 0.5, 20: 0.7}, prompts="more")
    (trace,) = (trace for trace in gold_plots(Record(folder)) if "more" in trace.title)
    first, last = trace.lines[0].at
    record = Record(folder)
    smooth = record.series("reward/mean").smoothed()
    assert (first, last) == (smooth.values[0], smooth.values[-1])


@pytest.mark.parametrize("values", [{}, {0: 0.5}, {0: 0.5, 20: float("nan")}, {0: 0.5, 13: 0.6}])
def test_fewer_than_two_common_evaluations_draw_nothing(folder, values):
    measure(folder, "Other", values)
    assert [trace for trace in gold_plots(Record(folder)) if trace.lines[0].name == "Other"] == []


def test_training_prompts_are_not_held_out(folder):
    measure(folder, "Other", {0: 0.5, 20: 0.7}, prompts="training prompts")
    assert [trace for trace in gold_plots(Record(folder)) if trace.lines[0].name == "Other"] == []


def test_the_page_has_it_where_something_else_is_measured(folder, tmp_path):
    title = "What is not trained, against the trained reward"
    assert title not in write_page(folder).read_text()
    measure(folder, "Other", {0: 0.5, 20: 0.7})
    text = write_page(folder).read_text()
    assert title in text
    assert re.search(r"<title>Other 0\.7, Toy 23: after 20</title>", text)


def test_runs_of_one_reward_are_compared(folder, tmp_path):
    other = run_folder(tmp_path / "other", lr=2e-3)
    measure(folder, "Toy", {10: 22.5})
    measure(folder, "Other", {0: 0.5, 10: 0.7, 20: 0.6})
    measure(other, "Other", {0: 0.5, 20: 0.9})
    runs = {"first": Record(folder), "second": Record(other)}
    (trace,) = (trace for trace in gold_comparison(runs) if trace.title.startswith("Other"))
    assert [line.name for line in trace.lines] == ["first", "second"]
    assert [line.values for line in trace.lines] == [[0.5, 0.7, 0.6], [0.5, 0.9]]
    assert [line.moments for line in trace.lines] == [[0, 10, 20], [0, 20]]
    assert [point.text for point in trace.points(trace.lines[1])][-1] == "second 0.9, Toy 23: after 20"
    write_comparison([folder, other], tmp_path / "page")
    assert GOLD in (tmp_path / "page" / "index.html").read_text()


def test_runs_of_other_rewards_are_not_compared(folder, tmp_path):
    other = run_folder(tmp_path / "other")
    for place in (folder, other):
        measure(place, "Other", {0: 0.5, 20: 0.7})
    runs = {"first": Record(folder), "second": Record(other)}
    assert gold_comparison(runs)
    vars(runs["second"])["reward"] = "Another"
    assert gold_comparison(runs) == []


def test_a_trace_goes_back_where_its_quantity_does():
    line = Line("gold", [20.0, 22.0, 21.0], [0.2, 0.8, 0.4], points=True, moments=[0, 5, 9])
    trace = Trace("t", [line], Bounded(), "proxy", across_scale=Level())
    # the axis holds the values, and does not begin at zero
    assert 15 < trace.across.low <= 20
    assert trace.across.high >= 22
    places = [(point.x, point.y) for point in trace.points(line)]
    assert places[0][0] < places[2][0] < places[1][0]
    assert places[0][1] > places[2][1] > places[1][1]
    (path,) = trace.paths(line)
    assert path.count("L") == 2
    assert [point.text for point in trace.points(line)][1] == "gold 0.8, proxy 22: after 5"
