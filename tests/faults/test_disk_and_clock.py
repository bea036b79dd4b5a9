"""A disk that is full or read-only in the middle of a run, and a clock that goes back."""

import errno
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.moments import Moments, run_apart
from tests.faults.programs import Training
from tests.faults.trials import differing

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*")


@contextmanager
def failing(call: str, number: int, after: int) -> Iterator[None]:
    """Within, a function of ``os`` fails with an error number from the call of number ``after`` on."""
    original, calls = getattr(os, call), itertools.count(1)

    def fail(*args: Any, **settings: Any) -> Any:
        if next(calls) >= after:
            raise OSError(number, os.strerror(number))
        return original(*args, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, fail)
        yield


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


@pytest.mark.parametrize(("call", "number", "after"), CASES)
def test_a_disk_that_fails_ends_the_run_in_a_sentence_and_loses_nothing(
    call: str, number: int, after: int, whole: Any, tmp_path: Path
) -> None:
    program = Training(tmp_path)

    def with_fault() -> None:
        with failing(call, number, after):
            program.run(tmp_path)

    ended = run_apart(with_fault, tmp_path / "log", Moments())
    assert ended.status == 2, ended.output[-2000:]
    assert not ended.traceback, ended.output[-2000:]
    errors = [line for line in ended.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert ("full" if number == errno.ENOSPC else "Read-only") in errors[0]
    assert run_apart(lambda: program.go_on(tmp_path), tmp_path / "after", Moments()).status == 0
    assert differing(program.left(tmp_path), whole) == []


def test_a_clock_that_goes_back_changes_nothing(whole: Any, tmp_path: Path) -> None:
    """Every look at the clock is an hour before the last one."""
    program, hours = Training(tmp_path), itertools.count()

    def backwards() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda: 1.8e9 - 3600.0 * next(hours))
            program.run(tmp_path)

    ended = run_apart(backwards, tmp_path / "log", Moments())
    assert ended.status == 0, ended.output[-2000:]
    assert differing(program.left(tmp_path), whole) == []
