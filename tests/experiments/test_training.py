"""A training run as a run, end to end, with a model that takes no time."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, pairwise

import pytest

from experiments import curve
from experiments.methods import Method, Target
from experiments.settings import ROOT, cpu_seconds
from experiments.training import Training
from rlr.modules import Alignment

METHOD = Method("toy", "tests/experiments/toy_run.yaml", samples=4)
EVALUATION = "tests/experiments/toy_evaluation.yaml"
POINTS = (2, 4)


def costless(rows):
    """The rows without what differs from run to run."""
    return [{name: value for name, value in row.items() if name != "step_seconds"} for row in rows]


@pytest.fixture(scope="module")
def training() -> Training:
    return Training(METHOD, EVALUATION, 0, POINTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the run of ``rows`` is, and the scores of its base model."""
    return tmp_path_factory.mktemp("shared")


def test_cpu_seconds_are_those_of_work_in_less_than_a_tick() -> None:
    """A clock that counts in ticks stands still in almost all of these intervals."""
    readings = [cpu_seconds()]
    for _ in range(20):
        sum(range(1000))
        readings.append(cpu_seconds())
    assert all(before < after for before, after in pairwise(readings))


@pytest.fixture(scope="module")
def rows(training, folder):
    """The rows of an uninterrupted run, with a clock on which a second passes each time someone reads it."""
    seconds: Iterator[int] = count()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(curve, "cpu_seconds", lambda: next(seconds))
        return training.run(folder / "whole", folder / "base")


def test_a_run_has_a_row_for_its_start_and_for_each_point(rows, folder) -> None:
    assert [row["update"] for row in rows] == [0, *POINTS]
    assert [row["samples"] for row in rows] == [0, 8, 16]
    assert [row["reward_calls"] for row in rows] == [0, 8, 16]
    assert rows[0]["Brightness gain"] == 0
    # the toy learns to be bright
    assert 0 < rows[1]["Brightness gain"] < rows[2]["Brightness gain"]
    assert rows[2]["Brightness low"] <= rows[2]["Brightness gain"] <= rows[2]["Brightness high"]
    assert rows[2]["Brightness"] == pytest.approx(rows[0]["Brightness"] + rows[2]["Brightness gain"], abs=1e-5)
    # those between steps, in which evaluations are, do not count
    assert [row["step_seconds"] for row in rows] == [0, *POINTS]
    # its checkpoint would be of no further use
    assert not list((folder / "whole").glob("*.ckpt"))


def test_a_killed_run_goes_on_to_the_rows_of_one_that_was_not(training, rows, folder, tmp_path, monkeypatch) -> None:
    step = Alignment.training_step
    seen = []

    def killed(self, *arguments):
        seen.append(1)
        if len(seen) == 4:
            raise RuntimeError("killed")
        return step(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Alignment, "training_step", killed)
        with pytest.raises(RuntimeError, match="killed"):
            training.run(tmp_path / "killed", folder / "base")
    assert len(seen) == 4
    monkeypatch.setattr(Alignment, "training_step", lambda self, *a: (seen.append(2), step(self, *a))[1])
    again = training.run(tmp_path / "killed", folder / "base")
    # of four updates three were in the checkpoint
    assert seen.count(2) == 1
    assert costless(again) == costless(rows)


def test_points_on_the_way_do_not_change_the_run(training, rows, folder, tmp_path) -> None:
    other = replace(training, points=(1, 3, 4)).run(tmp_path / "other", folder / "base")
    assert costless(other)[-1] == costless(rows)[-1]


def test_runs_share_the_scores_of_the_base_model(training, rows, folder, tmp_path, monkeypatch) -> None:
    kept = []
    monkeypatch.setattr("rlr.evaluation.base_scores.BaseScores.keep", lambda *a: kept.append(a))
    other = replace(training, seed=1).run(tmp_path / "other", folder / "base")
    assert not kept
    assert other[0] == {**rows[0]}
    assert costless(other)[-1] != costless(rows)[-1]


def test_a_run_of_another_command_has_another_folder(training, setting, monkeypatch) -> None:
    folders = []
    monkeypatch.setattr(Training, "run", lambda self, folder, base: folders.append((folder, base)))
    for run in (
        training,
        replace(training, seed=1),
        replace(training, method=METHOD.with_overrides("model.init_args.optimization.lr=0.1")),
    ):
        run.as_run(setting, "toy", {"method": "a b", "seed": 0}).measure()
    assert len({folder for folder, _ in folders}) == 3
    assert len({base for _, base in folders}) == 1
    assert all(folder.is_relative_to(setting.runs / "tiny" / "toy") for folder, _ in folders)


def test_the_command_can_be_typed() -> None:
    target = Target("Light", "Light", suffix="run", overrides=("model.init_args.reward=tests.toy.demo.toy.Light",))
    method = Method("toy", "tests/experiments/toy_{reward}.yaml").with_reward(target)
    command = Training(method, EVALUATION, 3, (1,)).command
    assert command.startswith("python train.py fit --config=tests/experiments/toy_run.yaml ")
    assert "--model.init_args.reward=tests.toy.demo.toy.Light --seed_everything=3 --model.init_args.seed=3" in command
    assert (ROOT / "tests/experiments/toy_run.yaml").is_file()


@pytest.mark.parametrize(("status", "error"), [(2, RuntimeError), (1, KeyboardInterrupt)])
def test_a_mistake_fails_the_run_and_an_interrupt_stops_the_experiment(status, error, training, tmp_path, monkeypatch):
    def leave(arguments: list[str]) -> None:
        raise SystemExit(status)

    monkeypatch.setattr("rlr.cli.main", leave)
    with pytest.raises(error):
        training.run(tmp_path / "run", tmp_path / "base")
