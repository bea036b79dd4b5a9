"""A process of a job dies, fails, or gets SIGTERM: all end with the reason within a minute, and the job resumes."""

import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.distributed.distributed_c10d import default_pg_timeout

from rlr.cli import main
from tests.cli.conftest import CONFIG
from tests.modules.processes import RUN, end_group, fork_group, start_group
from tests.modules.toy import Level

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*")

MINUTE = 60.0
"""The seconds from a fault to the end of the last process, far below the half hour that one waits for another in an exchange."""


class Signal(Callback):
    """Sends a process of the job a signal in the middle of an update, and notes that it does."""

    def __init__(self, rank: int, update: int, number: int, note: str) -> None:
        self.rank, self.update, self.number, self.note = rank, update, number, note

    def on_before_optimizer_step(self, trainer: Any, *args: Any) -> None:
        if (trainer.global_rank, trainer.global_step) == (self.rank, self.update):
            Path(self.note).touch()
            os.kill(os.getpid(), self.number)


class Raising(Level):
    """A reward that raises once it is armed."""

    armed = False

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        if self.armed:
            raise KeyError("no such caption")
        return super().forward(samples, prompts)


class Arm(Callback):
    """Arms the reward of one process of the job in an update, and notes that it does."""

    def __init__(self, rank: int, update: int, note: str) -> None:
        self.rank, self.update, self.note = rank, update, note

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if (trainer.global_rank, trainer.global_step) == (self.rank, self.update):
            Path(self.note).touch()
            pl_module.reward.armed = True


def in_job(folder: Path, options: tuple[str, ...], rank: int) -> None:
    """What each process of the job does; the status is that of its command line."""
    place = [f"--config={folder / 'config.yaml'}", f"--trainer.default_root_dir={folder / 'out'}"]
    with (folder / f"output{rank}.txt").open("w") as file:
        sys.stderr = file
        try:
            main(["fit", *place, "--trainer.devices=2", "--trainer.strategy=ddp", *options])
        except SystemExit as left:
            file.flush()
            os._exit(int(left.code or 0))


def config(folder: Path, callback: str = "", **arguments: object) -> None:
    """Writes the config of a job that keeps each update, with a further callback of this file."""
    listed = ["{class_path: Checkpointing, init_args: {every: 1}}"]
    if callback:
        given = ", ".join(f"{name}: {value}" for name, value in arguments.items())
        listed.append(f"{{class_path: tests.faults.test_ranks.{callback}, init_args: {{{given}}}}}")
    text = CONFIG.replace("tests.modules.toy.Level", "tests.faults.test_ranks.Raising")
    (folder / "config.yaml").write_text(f"{text.rstrip()}\n  callbacks: [{', '.join(listed)}]\n")


def statuses_after(folder: Path) -> Sequence[int | None]:
    """Runs the job as its users do, and returns the statuses of its processes, None of one that runs a minute after the fault."""
    assert default_pg_timeout > timedelta(seconds=MINUTE)
    ranks = fork_group(2, partial(in_job, folder, ()), folder, timeout=None)
    waited, pause = 0.0, 0.05
    while not (folder / "fault").exists() and any(rank.is_alive() for rank in ranks) and waited < RUN:
        sleep(pause)
        waited += pause
    return end_group(ranks, MINUTE)


def stated(folder: Path, rank: int) -> str:
    """The one error that a process has stated."""
    (line,) = [line for line in (folder / f"output{rank}.txt").read_text().splitlines() if line.startswith("error")]
    return line


def check_resumes(folder: Path) -> None:
    """The job goes on from the last update of all processes, without the fault."""
    assert torch.load(folder / "out" / "last.ckpt", weights_only=True)["global_step"] == 2
    config(folder)
    assert start_group(2, partial(in_job, folder, ("--ckpt_path=last",)), folder) == [0, 0]
    assert torch.load(folder / "out" / "last.ckpt", weights_only=True)["global_step"] == 3


@pytest.mark.parametrize("rank", [0, 1])
def test_a_job_ends_with_its_reason_within_a_minute_after_a_process_dies(rank: int, tmp_path: Path) -> None:
    config(tmp_path, "Signal", rank=rank, update=2, number=signal.SIGKILL.value, note=tmp_path / "fault")
    ended = statuses_after(tmp_path)
    assert (ended[rank], ended[1 - rank]) == (-signal.SIGKILL, 2)
    assert stated(tmp_path, 1 - rank).startswith(f"error: process {1 - rank} of 2 lost another one, and the job ends")
    check_resumes(tmp_path)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_job_ends_with_its_reason_within_a_minute_after_a_reward_raises_in_one_process(
    rank: int, tmp_path: Path
) -> None:
    config(tmp_path, "Arm", rank=rank, update=2, note=tmp_path / "fault")
    assert statuses_after(tmp_path) == [2, 2]
    assert stated(tmp_path, rank).startswith("error: the reward Raising: expected scores, got KeyError: ")
    assert stated(tmp_path, 1 - rank).startswith(f"error: process {1 - rank} of 2 lost another one, and the job ends")
    check_resumes(tmp_path)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_job_ends_with_status_143_within_a_minute_after_a_process_is_terminated(rank: int, tmp_path: Path) -> None:
    """The command line of each process has it; the update in which the signal comes is finished on both."""
    config(tmp_path, "Signal", rank=rank, update=1, number=signal.SIGTERM.value, note=tmp_path / "fault")
    assert statuses_after(tmp_path) == [143, 143], (tmp_path / "output0.txt").read_text()
    check_resumes(tmp_path)
