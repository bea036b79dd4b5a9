"""One line on a terminal, a line now and then in a file, and never a long silence."""

import io
import itertools

import pytest

from rlr.io.terminal import ERASE, RemainingTime, Terminal, duration, seconds


class Stream(io.StringIO):
    def __init__(self, live: bool) -> None:
        super().__init__()
        self.live = live

    def isatty(self) -> bool:
        return self.live


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def terminal(live: bool) -> Terminal:
    return Terminal(Stream(live), Clock(), period=10.0)


def test_a_file_gets_a_line_now_and_then():
    file = terminal(live=False)
    with file.alive():
        for second in range(100):
            file.clock.now = float(second)
            file.status(f"update {second}")
    assert file.stream.getvalue().splitlines() == [f"update {k}" for k in range(10, 100, 10)]


@pytest.mark.parametrize("live", [False, True])
def test_no_silence_is_longer_than_the_period(live):
    """While one piece of work takes 100 s, and the thread looks every second."""
    shown = terminal(live)
    silences, last = [], 0.0
    with shown.alive():
        shown.status("sampling")
        size = len(shown.stream.getvalue())
        for second in range(1, 101):
            shown.clock.now = float(second)
            shown.beat()
            if len(shown.stream.getvalue()) > size:
                silences.append(second - last)
                size, last = len(shown.stream.getvalue()), second
    assert max(silences) <= 10
    assert len(silences) == 10
    assert "sampling · for 90 s" in shown.stream.getvalue()


def test_a_terminal_has_one_line_that_other_text_replaces():
    live = terminal(live=True)
    with live.alive():
        live.status("one")
        live.status("two")
        assert live.stream.getvalue() == f"{ERASE}one{ERASE}two"
        live.clear()
        live.clear()
        assert live.stream.getvalue() == f"{ERASE}one{ERASE}two{ERASE}"
        live.status("three")
    # nothing of the line is left at the end
    assert live.stream.getvalue().endswith(f"three{ERASE}")


def test_a_library_call_is_silent():
    silent = terminal(live=True)
    silent.status("one")
    silent.beat()
    assert silent.stream.getvalue() == ""


def test_a_stream_that_nobody_reads_does_not_fail_the_run():
    closed = terminal(live=True)
    with closed.alive():
        closed.stream.close()
        closed.status("one")


def test_time_left_is_that_of_the_latest_pieces():
    clock = Clock()
    pace = RemainingTime(200, clock, window=2)
    assert pace.reached(0) == ""
    for done, now in ((1, 100.0), (2, 101.0), (3, 113.0)):
        clock.now = now
        stated = pace.reached(done)
    assert stated == "6.5 s each · 21 min left"
    assert pace.reached(3) == "12 s each · 39 min left"
    unknown = RemainingTime(None, clock)
    unknown.reached(0)
    clock.now += 0.5
    assert unknown.reached(1) == "0.5 s each"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 s"), (59.6, "60 s"), (99.0, "99 s"), (120.0, "2 min"), (5940.0, "99 min"), (7800.0, "2 h 10 min")],
)
def test_durations(value, text):
    assert duration(value) == text


def test_durations_rise():
    """The text never says less for more."""
    units = {"s": 1, "min": 60, "h": 3600}
    values = []
    for second in range(0, 20_000, 7):
        words = duration(float(second)).split()
        values.append(sum(int(n) * units[unit] for n, unit in zip(words[::2], words[1::2], strict=True)))
    assert all(a <= b for a, b in itertools.pairwise(values))
    assert max(abs(v - s) for v, s in zip(values, range(0, 20_000, 7), strict=True)) <= 30
    assert seconds(0.346) == "0.35 s"
