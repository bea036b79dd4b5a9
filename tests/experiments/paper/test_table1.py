"""Table 1: what is measured is what the problems know, and the page says it."""

from functools import cached_property
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure as Canvas

from experiments.base import Figure, Row, Table
from experiments.cost.estimators import ENTRIES, FULL
from experiments.paper.problems import Images, Linear, ReferenceProblem
from experiments.paper.table1 import Table1, _knowledge, measure
from experiments.settings import SD14, TINY
from rlr.analysis.problem import Problem
from rlr.chain import Chain
from rlr.objective import Objective
from rlr.rewards import Brightness
from rlr.samplers import DDIM
from tests.toy.demo.toy import Smear

NAMES = {entry.name: entry for entry in ENTRIES}


class Smeared(Images):
    """The image problem with a model of one moment."""

    def __init__(self, folder: Path) -> None:
        super().__init__("brightness", Brightness, 5, 4, 6, 12, folder)

    @cached_property
    def problem(self) -> Problem:
        chain = Chain(Smear(), DDIM(self.steps)).eval()
        prompts = ["a"] * self.batch
        return Problem(chain, Objective(chain.model, self.reward()).of_frames(), prompts)


def test_there_is_a_run_for_every_estimator_on_both_problems() -> None:
    runs = Table1().runs(TINY, (0, 1, 2))
    assert len(runs) == 2 * len(ENTRIES) == len({run.title for run in runs})
    assert [c.key for c in runs] == [c.key for c in Table1().runs(TINY, ())]
    plain = {run.command for run in runs if "OfficialRLR" not in run.title}
    assert len(plain) == 2
    scripts = {run.title: run.command for run in runs if "OfficialRLR" in run.title}
    assert len(scripts) == len(set(scripts.values())) == 4
    assert not plain & set(scripts.values())
    for title, command in scripts.items():
        assert f"eta = {0.05 if 'aesthetic' in title else 1}," in command
    with pytest.raises(ValueError, match="measured for the setting tiny alone"):
        Table1().runs(SD14, (0,))


def test_what_is_known_of_the_linear_chain() -> None:
    known = Linear(10, 8, 100)
    full, truncated, half = (
        measure(known, NAMES[name]) for name in (FULL.name, "FirstOrder(1)", "HalfOrderRLR(1), all segments")
    )
    assert known.reference.error == 0
    assert full["least"] == 0
    assert half["least"] == 0
    assert truncated["least"] > 0.1
    assert truncated["variance"] < full["variance"] < half["variance"]
    assert full["peak_mib"] > truncated["peak_mib"]
    assert full["cpu_seconds"] > 0


def test_another_eta_has_a_gradient_and_a_file_of_its_own(tmp_path) -> None:
    one, other = (Linear(10, 8, 100, eta) for eta in (1.0, 0.05))
    assert not torch.allclose(one.reference.full.mean, other.reference.full.mean, rtol=1e-3)
    assert other.problem.chain.sampler.eta == 0.05
    for eta in (1.0, 0.05):
        smeared = Smeared(tmp_path)
        smeared.eta = eta
        assert smeared.reference.full.draws.shape[0] == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "table1_brightness_T5_B4_N12.pt",
        "table1_brightness_T5_eta0.05_B4_N12.pt",
    ]


def test_a_note_names_the_rows_with_a_gradient_of_their_own() -> None:
    rows: list[Row] = [{"estimator": name, "reference_error": e} for name, e in (("a", 0.02), ("b", 0.07), ("c", 0.02))]
    assert _knowledge(rows).endswith("± 2%, an error that all rows share, but those with a g of their own (b: ± 7%).")
    assert _knowledge(rows[::2]).endswith("all rows share.")
    assert _knowledge([{"estimator": "a", "reference_error": 0.0}]).startswith("g is exact.")


def test_the_reference_of_images_is_drawn_once_and_kept(tmp_path) -> None:
    known = Smeared(tmp_path)
    first = known.reference
    (path,) = tmp_path.iterdir()
    draws = torch.load(path, weights_only=True)
    assert draws.shape[:2] == (2, 12)
    again = Smeared(tmp_path)
    again.__dict__["problem"] = None  # another drawing would fail
    assert torch.equal(again.reference.full.draws, first.full.draws)
    row = measure(known, FULL)
    assert row["share"] == pytest.approx(1, abs=0.2)


def test_estimates_and_reference_share_no_noise() -> None:
    known = Smeared(TINY.runs)
    assert not set(known.seeds) & set(Smeared.reference_seeds(12))
    assert len(set(known.seeds)) == 6


def rows(known: ReferenceProblem, *names: str) -> list[Row]:
    return [
        {"problem": known.name, "estimator": name, "command": known.command, **measure(known, NAMES[name])}
        for name in names
    ]


def test_the_page_shows_all_that_is_measured() -> None:
    shown = Table1().report(rows(Linear(10, 8, 20), "FirstOrder(1)", "AlignProp"))
    table, figure = shown
    assert isinstance(table, Table)
    assert isinstance(figure, Figure)
    assert [line[0] for line in table.rows] == ["FirstOrder(1)", "AlignProp"]
    assert all(len(line) == len(table.head) for line in table.rows)
    assert table.note.startswith("g is exact.")


def test_the_figure_is_drawn(tmp_path) -> None:
    known = Smeared(tmp_path)
    *_, figure = Table1().report(rows(known, FULL.name, "FirstOrder(1)"))
    assert isinstance(figure, Figure)
    canvas = Canvas()
    figure.draw(canvas)
    assert len(canvas.axes) == 3
