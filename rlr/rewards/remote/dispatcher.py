"""Several servers that do the same work: a task goes to whichever is free, and the tasks of one that fails to the others."""

import os
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Condition, Thread
from time import sleep
from typing import Any, Generic, TypeVar

Server = TypeVar("Server")
Task = TypeVar("Task")
Result = TypeVar("Result")
Settle = Callable[[], None]
"""Notes the outcome of what a thread did."""


@dataclass(eq=False)
class Place(Generic[Server]):
    """A server, and what is known of it.

    Args:
        server: The server.
        up: Whether its last answer came.
        busy: Whether a thread asks it; one does at a time.
        failures: The number of failures since it did a task.
        reason: What the last of them was.
    """

    server: Server
    up: bool = False
    busy: bool = False
    failures: int = 0
    reason: str = ""


@dataclass(eq=False)
class Job(Generic[Task, Result]):
    """The tasks of one call.

    Args:
        tasks: All tasks.
        waiting: The numbers of those that no server has.
        results: What is done, by number.
        error: An error that ends the call.
        notes: What to warn of.
    """

    tasks: Sequence[Task]
    waiting: deque[int]
    results: dict[int, Result] = field(default_factory=dict)
    error: Exception | None = None
    notes: list[str] = field(default_factory=list)


class Dispatcher(Generic[Server, Task, Result]):
    r"""Distributes tasks over servers, each of which does one at a time.

    A free server takes the next task, so a slow one does fewer. A task whose server fails goes to the next free one. The
    server is asked whether it is back :math:`2^{k - 1} d` seconds after its :math:`k`-th failure in a row, while the others
    work, and gets tasks again once it is. After more than ``retries`` failures it rests until the next call.

    Args:
        servers: The servers, by address.
        work: Does a task at a server; raises a ``ConnectionError`` where another attempt may help.
        probe: Asks whether a server is there; raises the same.
        retries: The number of further attempts after the first failure of a server.
        delay: The seconds :math:`d`.
    """

    def __init__(
        self,
        servers: dict[str, Server],
        work: Callable[[Server, Task], Result],
        probe: Callable[[Server], None],
        retries: int,
        delay: float,
    ) -> None:
        self.servers, self.work, self.probe = servers, work, probe
        self.retries, self.delay = retries, delay
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._changed = Condition()
        self._places = {url: Place(server) for url, server in self.servers.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out threads and locks; a copy probes the servers again."""
        kept = ("servers", "work", "probe", "retries", "delay")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`__getstate__` returned."""
        self.__dict__.update(state)
        self._reset()

    def connect(self) -> None:
        """Waits until a server is there and all have been asked.

        Raises:
            ConnectionError: If no server is there.
        """
        job: Job[Task, Result] = Job([], deque())
        self._until(job, lambda: all(p.up or p.failures for p in self._places.values()) and self._any_up())

    def run(self, tasks: Sequence[Task], first: int = 0) -> list[Result]:
        """Returns the results of tasks, in their order.

        Args:
            tasks: The tasks.
            first: The number of the server that gets the first task; several processes that share servers begin at several.

        Raises:
            ConnectionError: If all servers fail.
            Exception: What ``work`` and ``probe`` raise besides.
        """
        job: Job[Task, Result] = Job(tasks, deque(range(len(tasks))))
        self._until(job, lambda: len(job.results) == len(tasks), first)
        return [job.results[i] for i in range(len(tasks))]

    def _until(self, job: Job[Task, Result], finished: Callable[[], bool], first: int = 0) -> None:
        if self._process != os.getpid():  # threads and held locks do not follow into a forked process
            self._reset()
        with self._changed:
            for place in self._places.values():
                place.failures = 0 if self._is_lost(place) else place.failures
            while not finished():
                self._occupy(job, first)
                if job.error is not None:
                    raise job.error
                if all(map(self._is_lost, self._places.values())):
                    raise ConnectionError(self._sentence())
                self._changed.wait()
        for note in job.notes:
            warnings.warn(note, stacklevel=4)

    def _any_up(self) -> bool:
        return any(place.up for place in self._places.values())

    def _is_lost(self, place: Place[Server]) -> bool:
        return not place.up and not place.busy and place.failures > self.retries

    def _occupy(self, job: Job[Task, Result], first: int) -> None:
        """Starts a thread at each free server that is down, or that is up while a task waits."""
        places = list(self._places.items())
        first %= len(places)
        for url, place in places[first:] + places[:first]:
            if place.busy or self._is_lost(place):
                continue
            if not place.up:
                self._start(place, job, self._revive, url, place, job)
            elif job.waiting:
                self._start(place, job, self._do, url, place, job, job.waiting.popleft())

    def _start(self, place: Place[Server], job: Job[Task, Result], target: Callable[..., Settle], *args: Any) -> None:
        place.busy = True
        # a daemon: nothing at the end of the program waits for a server that is silent
        Thread(target=self._guarded, args=(place, job, target, *args), daemon=True).start()

    def _guarded(self, place: Place[Server], job: Job[Task, Result], target: Callable[..., Settle], *args: Any) -> None:
        try:
            settle = target(*args)
        except Exception as error:  # it is raised where the results are waited for
            settle = partial(self._stop, job, error)
        # together, so that no waiting thread sees the result of a server that is still busy
        with self._changed:
            settle()
            place.busy = False
            self._changed.notify_all()

    def _do(self, url: str, place: Place[Server], job: Job[Task, Result], number: int) -> Settle:
        try:
            result = self.work(place.server, job.tasks[number])
        except ConnectionError as error:
            return partial(self._return, url, place, job, number, error)
        return partial(self._finish, place, job, number, result)

    def _revive(self, url: str, place: Place[Server], job: Job[Task, Result]) -> Settle:
        if place.failures:
            sleep(self.delay * 2 ** (place.failures - 1))
        try:
            self.probe(place.server)
        except ConnectionError as error:
            return partial(self._fail, url, place, job, error)
        return partial(setattr, place, "up", True)

    def _stop(self, job: Job[Task, Result], error: Exception) -> None:
        job.error = job.error or error

    def _finish(self, place: Place[Server], job: Job[Task, Result], number: int, result: Result) -> None:
        job.results[number], place.failures = result, 0

    def _return(
        self, url: str, place: Place[Server], job: Job[Task, Result], number: int, error: ConnectionError
    ) -> None:
        job.waiting.appendleft(number)
        self._fail(url, place, job, error)

    def _fail(self, url: str, place: Place[Server], job: Job[Task, Result], error: ConnectionError) -> None:
        place.up, place.reason = False, str(error)
        place.failures += 1
        if place.failures == 1 and len(self._places) > 1:
            job.notes.append(
                f"the reward server {url} failed: {place.reason}; its samples go to the others, and it is asked again later"
            )

    def _sentence(self) -> str:
        tries = f"failed {self.retries + 1} times"
        if len(self._places) == 1:
            ((url, place),) = self._places.items()
            return (
                f"the reward server {url} {tries}, at last with: {place.reason}; check that it runs and is reached from here, "
                "or raise timeout or retries"
            )
        reasons = "; ".join(f"{url}: {place.reason}" for url, place in self._places.items())
        return (
            f"each of the {len(self._places)} reward servers {tries}, at last with: {reasons}; check that they run and are "
            "reached from here, or raise timeout or retries"
        )
