"""A disk that is full or read-only in the middle of a run, and clocks that go back."""

import errno
import itertools
import json
import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults.moments import Moments, run_apart
from tests.faults.programs import Training
from tests.faults.trials import differing

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*")


@contextmanager
def from_call(call: str, after: int, act: Callable[[], None]) -> Iterator[None]:
    """Within, something is done before each call of a function of ``os``, from the call of number ``after`` on."""
    original, calls = getattr(os, call), itertools.count(1)

    def late(*args: Any, **settings: Any) -> Any:
        if next(calls) >= after:
            act()
        return original(*args, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, late)
        yield


def failing(call: str, number: int, after: int) -> AbstractContextManager[None]:
    """Within, a function of ``os`` raises an error number, as the kernel has it, from the call of number ``after`` on."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return from_call(call, after, fail)


def limited(after: int, size: int) -> AbstractContextManager[None]:
    """Within, the kernel itself refuses what makes a file larger than ``size`` bytes, from the call of ``fsync`` of a number on."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    return from_call("fsync", after, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, most)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What an uninterrupted run leaves."""
    folder = tmp_path_factory.mktemp("whole")
    program = Training(folder)
    assert run_apart(lambda: program.run(folder), folder / "log", Moments()).status == 0
    return program.left(folder)


CASES = [
    ("fsync", errno.ENOSPC, 4),
    pytest.param("fsync", errno.ENOSPC, 1, marks=pytest.mark.slow),
    pytest.param("fsync", errno.ENOSPC, 8, marks=pytest.mark.slow),
    pytest.param("replace", errno.ENOSPC, 6, marks=pytest.mark.slow),
    ("replace", errno.EROFS, 5),
    pytest.param("replace", errno.EROFS, 2, marks=pytest.mark.slow),
    pytest.param("replace", errno.EROFS, 9, marks=pytest.mark.slow),
]


def check_fault(fault: Callable[[], AbstractContextManager[None]], said: str, whole: Any, folder: Path) -> None:
    """A run with a fault ends with one sentence that has some word, and what continues it ends as a whole run does."""
    program = Training(folder)

    def with_fault() -> None:
        with fault():
            program.run(folder)

    ended = run_apart(with_fault, folder / "log", Moments())
    assert ended.status == 2, ended.output[-2000:]
    assert not ended.traceback, ended.output[-2000:]
    errors = [line for line in ended.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert run_apart(lambda: program.go_on(folder), folder / "after", Moments()).status == 0
    assert differing(program.left(folder), whole) == []


@pytest.mark.parametrize(("call", "number", "after"), CASES)
def test_a_disk_that_fails_ends_the_run_in_a_sentence_and_loses_nothing(
    call: str, number: int, after: int, whole: Any, tmp_path: Path
) -> None:
    said = "full" if number == errno.ENOSPC else "Read-only"
    check_fault(partial(failing, call, number, after), said, whole, tmp_path)


def test_a_limit_of_the_kernel_ends_the_run_in_a_sentence_and_loses_nothing(whole: Any, tmp_path: Path) -> None:
    """A real error of ``write``, in the middle of a checkpoint, whose first 4 KiB are written."""
    check_fault(
        partial(limited, after=4, size=4096), "last.ckpt could not be written, for the disk is full", whole, tmp_path
    )


# ---------------------------------------------------------------- clocks


class Logged(Training):
    """Training with TensorBoard, which notes the time of each number."""

    def options(self, folder: Path) -> Sequence[str]:
        return ["--trainer.logger=TensorBoardLogger", f"--trainer.logger.save_dir={folder / 'board'}"]


@contextmanager
def clocks_that_go_back() -> Iterator[Counter[str]]:
    """Within, every look at a clock is an hour before the last one; the value counts the looks.

    The clock of the machine: ``time.time`` of loggers, and the date of ``rlr.evaluation.provenance``. And those that the system
    promises never go back: ``time.monotonic`` of checkpoints, ``time.perf_counter``.
    """
    looks: Counter[str] = Counter()

    def look(name: str) -> float:
        looks[name] += 1
        return 1.8e9 - 3600.0 * looks.total()

    class Backwards(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.fromtimestamp(look("date"), tz)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rlr.evaluation.provenance.datetime", Backwards)
        for name in ("time", "monotonic", "perf_counter"):
            patch.setattr(time, name, partial(look, name))
        yield looks


def test_clocks_that_go_back_change_nothing(whole: Any, tmp_path: Path) -> None:
    program = Logged(tmp_path)

    def backwards() -> None:
        with clocks_that_go_back() as looks:
            program.run(tmp_path)
        (tmp_path / "looks.json").write_text(json.dumps(looks))

    ended = run_apart(backwards, tmp_path / "log", Moments())
    assert ended.status == 0, ended.output[-2000:]
    looks = json.loads((tmp_path / "looks.json").read_text())
    assert {"time", "monotonic", "date"} <= looks.keys()
    assert differing(program.left(tmp_path), whole) == []
