"""A group of processes that train together on the CPU, as torchrun starts them; one group serves many runs."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.context import ForkProcess
from pathlib import Path
from time import monotonic

import torch

RUN = 600.0
"""The seconds after which a group that hangs is killed; it is no measure of speed."""
SHORT = timedelta(seconds=60)
"""How long a process waits for another, so that a test which hangs states where; the default of training is half an hour."""


def run_group(world: int, work: Callable[[int], None], folder: Path) -> None:
    """Runs ``work(rank)`` in each of ``world`` forked processes with a process group of gloo.

    Raises:
        AssertionError: With the traceback of each rank that failed, or that did not end.
    """
    statuses = start_group(world, work, folder)
    failures = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("failure*.txt"))]
    assert not failures, "\n".join(failures)
    assert statuses == world * [0]


def start_group(world: int, work: Callable[[int], None], folder: Path) -> list[int | None]:
    """Runs ``work(rank)`` in each of ``world`` forked processes, and returns their exit statuses; None of one that hangs.

    Args:
        world: The number of processes.
        work: What each does; its traceback is left in ``failureRANK.txt``.
        folder: Where that is.
    """
    return end_group(fork_group(world, work, folder), RUN)


def fork_group(
    world: int, work: Callable[[int], None], folder: Path, timeout: timedelta | None = SHORT
) -> list[ForkProcess]:
    """Starts ``work(rank)`` in each of ``world`` forked processes, and returns them.

    Args:
        world: The number of processes.
        work: What each does; its traceback is left in ``failureRANK.txt``.
        folder: Where that is.
        timeout: How long one waits for another in an exchange. None makes no process group: what trains makes its own, with the
            limit that a user's run has.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_rank, args=(rank, world, port, work, folder, timeout)) for rank in range(world)]
    for process in ranks:
        process.start()
    return ranks


def end_group(ranks: Sequence[ForkProcess], seconds: float) -> list[int | None]:
    """Waits for processes, kills those that have not ended after so many seconds, and returns statuses; None of one killed."""
    end = monotonic() + seconds
    for process in ranks:
        process.join(max(0.0, end - monotonic()))
    statuses = [None if process.is_alive() else process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
        process.join()
    return statuses


def _rank(
    rank: int, world: int, port: int, work: Callable[[int], None], folder: Path, timeout: timedelta | None
) -> None:
    """Runs the work in a forked process, with the environment that torchrun gives."""
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": 0}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
    os.environ.update({name: str(value) for name, value in {**places, **address}.items()})
    try:
        if timeout is not None:
            torch.distributed.init_process_group("gloo", timeout=timeout)
        work(rank)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except BaseException:
        (folder / f"failure{rank}.txt").write_text(f"rank {rank}:\n{traceback.format_exc()}", encoding="utf-8")
        os._exit(1)
    os._exit(0)
