"""Programs that a signal ends continue to what an uninterrupted one leaves; ``make test-faults`` tries more moments."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlr.callbacks import metrics_file
from rlr.io import atomic
from tests.faults.moments import Moments, drawn, run_apart
from tests.faults.programs import PROGRAMS, Evaluation, Export, Prediction, Program, Saving, Training, VBenchSampling
from tests.faults.trials import Row, Trials, differing, table

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*")

QUICK: dict[str, tuple[Callable[[Path], Program], str]] = {
    "training": (Training, "SIGKILL"),
    "writing a checkpoint": (Saving, "SIGKILL"),
    "evaluation": (Evaluation, "SIGTERM"),
    "prediction": (Prediction, "SIGINT"),
    "VBench sampling": (VBenchSampling, "SIGKILL"),
    "export": (Export, "SIGINT"),
}


SLOW = {"evaluation", "prediction", "VBench sampling"}
"""Programs that tests of their own interrupt, too."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in QUICK])
def test_a_program_that_a_signal_ends_continues_to_the_same_end(name: str, tmp_path: Path) -> None:
    kind, sent = QUICK[name]
    trials = Trials(kind(tmp_path), tmp_path / "trials")
    assert trials.prepare() > 1000
    row = trials.run(sent, 1, seed=1)
    assert (row.tried, row.lost, row.failed) == (1, 0, 0), row.notes


def test_all_programs_have_a_quick_trial() -> None:
    assert {kind for kind, _ in QUICK.values()} == set(PROGRAMS)


def test_the_law_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is written in place, and killed in the middle, is half a file."""

    def in_place(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            middle()
            file.write(content[len(content) // 2 :])

    def middle() -> None:
        """The only moment that is counted."""

    def program() -> None:
        in_place(tmp_path / "file", b"content")

    moments = Moments(within=in_place.__qualname__)
    calls = run_apart(program, tmp_path / "whole", moments).calls
    torn = []
    for at in range(1, calls + 1):
        assert run_apart(program, tmp_path / f"{at}", moments, at, signal.SIGKILL).status == -signal.SIGKILL
        torn.append((tmp_path / "file").read_bytes() != b"content")
    assert any(torn)


def test_a_row_that_is_lost_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the row that is written before a checkpoint, a kill in between loses the row of the update."""
    monkeypatch.setattr("rlr.callbacks.checkpointing.write_row", lambda trainer: None)
    trials = Trials(Training(tmp_path), tmp_path / "trials")
    trials.prepare()
    program = trials.program
    # a kill while Lightning writes the row of the second of three updates, whose checkpoint is there
    kill = Moments(within=metrics_file.Rows.log_metrics.__qualname__)
    folder = tmp_path / "killed"
    calls = run_apart(lambda: program.run(tmp_path / "counted"), tmp_path / "count", kill).calls
    run_apart(lambda: program.run(folder), tmp_path / "log", kill, calls // 2, signal.SIGKILL)
    run_apart(lambda: program.go_on(folder), tmp_path / "after", kill)
    assert differing(program.left(folder), trials._expected) == ["rows"]


def test_moments_are_the_same_in_each_run(tmp_path: Path) -> None:
    def program() -> None:
        atomic.write_whole(tmp_path / "file", b"content")

    ended = [run_apart(program, tmp_path / name, Moments()) for name in ("one", "two")]
    assert ended[0].calls == ended[1].calls > 0
    assert drawn(100, 5, 0) == drawn(100, 5, 0) != drawn(100, 5, 1)
    assert len(set(drawn(100, 50, 0))) == 50


def test_a_table_states_what_was_found() -> None:
    rows = [Row("training", "SIGKILL", 20, 1, 0, ("call 3 of 9: weights",))]
    assert table(rows).splitlines()[-1] == "| training | SIGKILL | 20 | 1 | 0 |"
    assert differing({"a": torch.tensor(1).item(), "b": 2}, {"a": 1, "c": 3}) == ["b", "c"]
