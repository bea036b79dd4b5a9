"""The queue measures every run once, in its order, and continues after failures and kills."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from experiments.base import Run
from experiments.board import queue as module
from experiments.board.tuning import SEED
from experiments.locks import claimed
from experiments.results import Results
from experiments.training import Training
from rlr.modules import Alignment
from tests.experiments.board.conftest import RATES, ToyBoard, ToyTuning

ONE = ("--one", "--seeds", "0")


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Replaces training; the result of a run is its learning rate, and 'slow' is best with the smallest."""
    runs: list[str] = []

    def run(self, folder, base):
        lr = next(float(a.split("=")[1]) for a in self.arguments if "optimization.lr" in a)
        runs.append(f"{self.method.name} {lr:g} {self.seed}")
        costs = {"samples": 0.0, "reward_calls": 0.0, "step_seconds": 0.0}
        worth = -abs(lr - (0.03 if self.method.name == "fast" else 0.01))
        return [
            {"update": float(u), **{name: float(u) for name in costs}, "Brightness": u * worth, "diversity": 0.5}
            for u in (0, *self.points)
        ]

    monkeypatch.setattr(Training, "run", run)
    return runs


def test_tries_precede_the_board_and_decisive_methods_the_others(queue, measured) -> None:
    statuses = []
    while (status := queue(*ONE)) == module.MEASURED:
        statuses.append(status)
    assert status == module.EMPTY
    fast = [f"fast {float(rate):g} {SEED}" for rate in RATES]
    slow = [f"slow {float(rate):g} {SEED}" for rate in RATES]
    # the best value of 'slow' is at the edge, and the next one is worse
    best, second = f"fast 0.03 {SEED}", f"fast 0.01 {SEED}"
    finals = [f"slow 0.01 {SEED}", f"slow 0.003 {SEED}", "slow 0.01 0"]
    assert measured == [*fast, best, second, "fast 0.03 0", *slow, f"slow 0.003 {SEED}", *finals]
    measured.clear()
    assert queue(*ONE) == module.EMPTY
    assert measured == []


def test_a_run_of_another_process_is_not_measured_twice(queue, measured, setting) -> None:
    first, *others = [f"fast {float(rate):g} {SEED}" for rate in RATES]
    run = ToyTuning().runs(setting, ())[0]
    assert run.title == f"method=fast value={RATES[0]}"
    with claimed(setting, "toy_tuning", run) as mine:
        assert mine
        for other in others:
            assert queue(*ONE) == module.MEASURED
            assert measured[-1] == other
        # the board of 'fast' waits for its try, and that of 'slow' does not
        assert queue(*ONE) == module.MEASURED
        assert measured[-1] == f"slow {float(RATES[0]):g} {SEED}"
    assert queue(*ONE) == module.MEASURED
    assert measured[-1] == first


def test_the_queue_waits_if_others_hold_all_that_is_left(queue, measured, setting) -> None:
    only = ("--only", "method=fast", f"value={RATES[0]}")
    (run,) = [r for r in ToyTuning().runs(setting, ()) if r.title == f"method=fast value={RATES[0]}"]
    with claimed(setting, "toy_tuning", run):
        assert queue(*ONE, *only) == module.WAITING
    assert queue(*ONE, *only) == module.MEASURED
    assert queue(*ONE, *only) == module.EMPTY


def test_a_failed_run_is_left_out_until_it_is_retried(queue, measured, setting, monkeypatch) -> None:
    def fail(self, folder, base):
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(Training, "run", fail)
        assert queue(*ONE) == module.FAILED
    assert queue(*ONE) == module.MEASURED
    assert measured == [f"fast {float(RATES[1]):g} {SEED}"]
    calls = []
    monkeypatch.setattr(module.subprocess, "run", lambda command, **_: calls.append(command) or done(module.EMPTY))
    assert queue("--retry", "--seeds", "0") == module.MEASURED
    assert "--retry" not in calls[0]
    assert calls[0][-1] == "--one"
    queue(*ONE)
    assert measured[-1] == f"fast {float(RATES[0]):g} {SEED}"


def done(status: int) -> subprocess.CompletedProcess:
    return subprocess.CompletedProcess([], status)


def test_the_loop_goes_on_after_failures_and_stops_after_a_kill(monkeypatch) -> None:
    def loop(*statuses: int) -> tuple[int, int]:
        left, pauses = list(statuses), []
        monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: done(left.pop(0)))
        monkeypatch.setattr(module.time, "sleep", pauses.append)
        return module.work([]), len(pauses)

    measured, failed, empty, waiting = module.MEASURED, module.FAILED, module.EMPTY, module.WAITING
    assert loop(measured, measured, empty) == (0, 0)
    assert loop(measured, failed, measured, empty) == (1, 0)
    assert loop(waiting, measured, empty) == (0, 1)
    assert loop(measured, -9) == (1, 0)


def test_a_claim_ends_with_its_process(setting) -> None:
    run = Run({"method": "a"}, "", list)
    with claimed(setting, "x", run) as mine, claimed(setting, "x", run) as again:
        assert (mine, again) == (True, False)
    with claimed(setting, "x", run) as mine:
        assert mine
    with claimed(setting, "x", run), claimed(setting, "y", run) as other:
        assert other


def test_rows_that_are_added_at_the_same_time_are_all_kept(tmp_path) -> None:
    path = tmp_path / "rows.csv"

    def add(start: int) -> None:
        for k in range(20):
            Results(path).add(Run({"k": start + k}, "", list), [{"x": 1.0}], {})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(add, (0, 100)))
    assert len(Results(path).lines) == 40


def test_an_unknown_name_is_refused(queue, capsys) -> None:
    with pytest.raises(SystemExit):
        queue("toy_bored")
    assert "expected NAME among toy_tuning, toy_finals, toy_board" in capsys.readouterr().err


def test_rows_are_committed_alone(queue, measured, setting) -> None:
    folder = setting.results / setting.name
    folder.mkdir(parents=True)

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    git("config", "user.email", "a@b.c")
    git("config", "user.name", "a")
    (folder / "other.txt").write_text("x")
    git("add", "other.txt")
    assert queue(*ONE, "--commit") == module.MEASURED
    assert set(git("show", "--name-only", "--format=").split()) == {
        f"toy_tuning.{kind}" for kind in ("csv", "md", "html")
    }
    assert git("log", "--format=%s").strip() == f"Measure toy_tuning method=fast value={RATES[0]}"
    assert git("status", "--porcelain").strip() == "A  other.txt"


# ---------------------------------------------------------------- end to end


def test_a_killed_run_of_the_queue_resumes_from_its_checkpoint(queue, setting, monkeypatch) -> None:
    step, steps = Alignment.training_step, []

    def killed(self, *arguments):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Alignment, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            queue(*ONE)
    steps.clear()
    monkeypatch.setattr(Alignment, "training_step", lambda self, *a: (steps.append(2), step(self, *a))[1])
    assert queue(*ONE) == module.MEASURED
    # two of four updates were in the checkpoint
    assert len(steps) == 2
    rows = Results.of(setting, "toy_tuning").rows(ToyTuning().runs(setting, ()))
    assert [row["update"] for row in rows] == [0, 2, 3, 4]
    assert (setting.results / "tiny" / "toy_tuning.md").is_file()
    assert ToyBoard().runs(setting, (0,)) == []
