"""A group of processes that train together on the CPU, as torchrun starts them; one group serves many runs."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch

RUN = 600.0
"""The seconds after which a group that hangs is killed; it is no measure of speed."""


def run_group(world: int, work: Callable[[int], None], folder: Path) -> None:
    """Runs ``work(rank)`` in each of ``world`` forked processes with a process group of gloo.

    Raises:
        AssertionError: With the traceback of each rank that failed, or that did not end.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_rank, args=(rank, world, port, work, folder)) for rank in range(world)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(RUN)
    hanging = [rank for rank, process in enumerate(ranks) if process.is_alive()]
    for process in ranks:
        process.kill()
    failures = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("failure*.txt"))]
    assert not failures, "\n".join(failures)
    assert not hanging, f"ranks {hanging} did not end"
    assert [process.exitcode for process in ranks] == world * [0]


def _rank(rank: int, world: int, port: int, work: Callable[[int], None], folder: Path) -> None:
    """Runs the work in a forked process, with the environment that torchrun gives."""
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": 0}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
    os.environ.update({name: str(value) for name, value in {**places, **address}.items()})
    try:
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
        work(rank)
        torch.distributed.destroy_process_group()
    except BaseException:
        (folder / f"failure{rank}.txt").write_text(f"rank {rank}:\n{traceback.format_exc()}", encoding="utf-8")
        os._exit(1)
    os._exit(0)
