"""Where scores are computed: at once, or in a thread of its own while something else is done."""

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue
from threading import Thread, current_thread
from typing import Any, TypeVar

import torch

Value = TypeVar("Value")
Task = Callable[[], None]
Pending = Callable[[], Value]
"""Waits for a value and returns it; raises what its computation raised."""


class Scoring(ABC):
    """Where scores are computed."""

    ahead: bool = False
    """Whether the scores of a rollout are asked for before they are needed."""

    @abstractmethod
    def begin(self, function: Callable[[], Value]) -> Pending[Value]:
        """Begins to compute the value of a function, and returns what waits for it."""


class AtOnce(Scoring):
    """Scores are computed where they are asked for."""

    def begin(self, function: Callable[[], Value]) -> Pending[Value]:
        value = function()
        return lambda: value


class InBackground(Scoring):
    """Scores are computed in one thread, while the next batch of the round is sampled.

    They are computed in the order in which they are asked for.

    No two calls of a reward run at the same time, so the reward need not be safe for threads. The thread computes on the
    device of its caller, with a graph where its caller builds one, and outside autocast. It begins with the first
    request, and a forked or pickled copy begins its own.
    """

    ahead = True

    def __init__(self) -> None:
        self._process: int | None = None
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()

    def begin(self, function: Callable[[], Value]) -> Pending[Value]:
        future: Future[Value] = Future()
        graph, device = torch.is_grad_enabled(), _device()

        def task() -> None:
            try:
                with torch.set_grad_enabled(graph), device:
                    future.set_result(function())
            except BaseException as error:  # it is raised where the value is waited for
                future.set_exception(error)

        self._queue().put(task)
        return future.result

    def _queue(self) -> "SimpleQueue[Task | None]":
        if self._process != os.getpid():  # threads do not follow into a forked process
            self._process, self._tasks = os.getpid(), SimpleQueue()
            thread = Thread(target=_work, args=(self._tasks,), daemon=True)
            thread.start()
            weakref.finalize(self, _stop, self._tasks, thread)
        return self._tasks

    def __reduce__(self) -> tuple[Any, ...]:
        """Leaves out the thread."""
        return InBackground, ()


def _device() -> AbstractContextManager[object]:
    """Returns the context of this thread's CUDA device; a new thread would have the first one."""
    return torch.cuda.device(torch.cuda.current_device()) if torch.cuda.is_initialized() else nullcontext()


def _work(tasks: "SimpleQueue[Task | None]") -> None:
    while (task := tasks.get()) is not None:
        task()


def _stop(tasks: "SimpleQueue[Task | None]", thread: Thread, seconds: float = 5.0) -> None:
    """Ends a thread after the tasks that it has; a judge that does not answer is not waited for."""
    tasks.put(None)
    # the program may not end while a thread computes, and a thread cannot wait for itself
    if thread.is_alive() and thread is not current_thread():
        thread.join(seconds)
