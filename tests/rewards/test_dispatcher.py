"""Tasks go to free servers, those of a failed server to the others, and results keep the order of tasks."""

import copy
import pickle
from threading import Barrier, Condition, Event, Lock, current_thread, main_thread
from time import sleep

import pytest

from rlr.rewards.remote import dispatcher
from rlr.rewards.remote.dispatcher import Dispatcher

PATIENCE = 120
"""Seconds after which a thread that waits for another one fails, which are many on a busy machine."""


class Fake:
    """A server that squares; fails while it is down; waits before each task for its gate."""

    def __init__(self, down=False):
        self.down, self.gate, self.done, self.lock = down, Event(), [], Lock()
        self.gate.set()

    def work(self, task):
        assert self.gate.wait(PATIENCE)
        if self.down:
            raise ConnectionError("down")
        with self.lock:
            self.done.append(task)
        return task**2

    def probe(self):
        if self.down:
            raise ConnectionError("still down")


def dispatching(*servers, retries=2, delay=0.0):
    named = {f"s{i}": server for i, server in enumerate(servers)}
    return Dispatcher(named, Fake.work, Fake.probe, retries, delay)


def test_each_task_is_done_once_and_results_keep_their_order():
    """No server ends its first task before each has one, so that each has."""
    servers, all_busy = [Fake(), Fake(), Fake()], Barrier(3)

    def work(server, task):
        if not server.done:
            all_busy.wait(PATIENCE)
        return server.work(task)

    found = Dispatcher(dict(enumerate(servers)), work, Fake.probe, 0, 0.0).run(list(range(20)))
    assert found == [i**2 for i in range(20)]
    assert sorted(task for server in servers for task in server.done) == list(range(20))
    assert all(server.done for server in servers)


def test_no_tasks_need_no_server():
    assert dispatching(Fake(down=True)).run([]) == []


def test_a_slow_server_gets_fewer_tasks():
    """It holds its first task until the fast one has done all others."""
    slow, fast, begun = Fake(), Fake(), Event()
    slow.gate.clear()

    def work(server, task):
        if server is slow:
            begun.set()
        assert begun.wait(PATIENCE)
        if server is fast and len(fast.done) == 8:
            slow.gate.set()
        return server.work(task)

    assert Dispatcher({"slow": slow, "fast": fast}, work, Fake.probe, 0, 0.0).run(range(10)) == [
        i**2 for i in range(10)
    ]
    assert (len(slow.done), len(fast.done)) == (1, 9)


def test_processes_begin_at_different_servers():
    servers = [Fake(), Fake(), Fake()]
    pool = dispatching(*servers)
    pool.connect()
    for rank in (0, 1, 2, 4):
        pool.run([rank], first=rank)
    assert [server.done for server in servers] == [[0], [1, 4], [2]]


class Paused(Condition):
    """The threads of servers pause whenever they have released the lock, and a thread that waits wakes by itself."""

    def __exit__(self, *args):
        super().__exit__(*args)
        if current_thread() is not main_thread():
            sleep(2e-3)

    def wait(self, timeout=None):
        return super().wait(1e-4)


def test_a_server_is_free_once_its_result_is_there():
    pool = dispatching(Fake(), Fake())
    pool._changed = Paused()
    pool.connect()
    for first in range(20):
        pool.run([first], first=first)
        assert not any(place.busy for place in pool._places.values())
    assert [place.server.done for place in pool._places.values()] == [[*range(0, 20, 2)], [*range(1, 20, 2)]]


def test_the_tasks_of_a_failed_server_go_to_the_others():
    good, bad = Fake(), Fake()
    pool = dispatching(bad, good)
    pool.connect()
    bad.down = True
    with pytest.warns(UserWarning, match=r"the reward server s0 failed: down; its samples go to the others"):
        assert pool.run(range(6)) == [i**2 for i in range(6)]
    assert (bad.done, sorted(good.done)) == ([], list(range(6)))


def test_a_server_that_is_back_gets_tasks_again():
    good, bad = Fake(), Fake(down=True)
    pool = dispatching(good, bad)
    with pytest.warns(UserWarning, match="s1 failed: still down"):
        pool.connect()
    assert pool.run(range(3)) == [0, 1, 4]
    bad.down = False
    good.gate.clear()

    def work(server, task):
        if server is bad:
            good.gate.set()
        return server.work(task)

    pool.work = work
    assert pool.run(range(5)) == [i**2 for i in range(5)]
    assert bad.done


def test_a_server_whose_answers_fail_does_not_hide_behind_its_health():
    pool = Dispatcher({"ill": Fake(down=True)}, Fake.work, lambda server: None, 2, 0.0)
    with pytest.raises(ConnectionError, match="the reward server ill failed 3 times, at last with: down"):
        pool.run([1])


def test_all_dead_is_one_sentence_with_all_reasons(monkeypatch):
    waits = []
    monkeypatch.setattr(dispatcher, "sleep", waits.append)
    pool = dispatching(Fake(down=True), Fake(down=True), retries=2, delay=0.5)
    expected = r"each of the 2 reward servers failed 3 times, at last with: s0: still down; s1: still down; check that"
    for _ in range(2):  # the second time as the first one
        with pytest.raises(ConnectionError, match=expected):
            pool.run([1, 2])
    assert sorted(waits) == [0.5] * 4 + [1.0] * 4


def test_another_error_ends_the_call_at_once_and_no_other():
    def refuse(server, task):
        if task == 3:
            raise ValueError("no such task")
        return server.work(task)

    pool = Dispatcher({"a": Fake(), "b": Fake()}, refuse, Fake.probe, 2, 0.0)
    with pytest.raises(ValueError, match="no such task"):
        pool.run(range(6))
    assert pool.run([1, 2]) == [1, 4]


@pytest.mark.parametrize("send", [copy.deepcopy, lambda pool: pickle.loads(pickle.dumps(pool))])
def test_a_copy_works_on_its_own(send):
    pool = Dispatcher({"a": 2, "b": 2}, pow, abs, 2, 0.0)
    assert pool.run([3]) == [8]
    assert send(pool).run([1, 2, 3]) == [2, 4, 8]
