"""A process of a job dies: the others end with the reason, and the job resumes."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from rlr.cli import main
from tests.cli.conftest import CONFIG
from tests.modules.processes import start_group

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*")


class Die(Callback):
    """Kills one process in the middle of an update."""

    def __init__(self, rank: int, update: int) -> None:
        self.rank, self.update = rank, update

    def on_before_optimizer_step(self, trainer: Any, *args: Any) -> None:
        if (trainer.global_rank, trainer.global_step) == (self.rank, self.update):
            os.kill(os.getpid(), signal.SIGKILL)


def fit(folder: Path, *options: str) -> Any:
    config = folder / "config.yaml"
    return main(["fit", f"--config={config}", f"--trainer.default_root_dir={folder / 'out'}", *options])


def in_job(folder: Path, options: tuple[str, ...], rank: int) -> None:
    """What each process of the job does; the status is that of its command line."""
    with (folder / f"output{rank}.txt").open("w") as file:
        sys.stderr = file
        try:
            fit(folder, "--trainer.devices=2", "--trainer.strategy=ddp", *options)
        except SystemExit as left:
            file.flush()
            os._exit(int(left.code or 0))


@pytest.mark.parametrize("rank", [0, 1])
def test_the_job_ends_with_its_reason_and_resumes(rank: int, tmp_path: Path) -> None:
    dying = f"\n  callbacks: [{{class_path: tests.faults.test_ranks.Die, init_args: {{rank: {rank}, update: 2}}}}]\n"
    keep = "{class_path: Checkpointing, init_args: {every: 1}}, "
    (tmp_path / "config.yaml").write_text(CONFIG.rstrip() + dying.replace("[{", f"[{keep}{{", 1))
    ended = start_group(2, lambda number: in_job(tmp_path, (), number), tmp_path)
    assert ended[rank] == -signal.SIGKILL
    assert ended[1 - rank] == 2
    (stated,) = [
        line for line in (tmp_path / f"output{1 - rank}.txt").read_text().splitlines() if line.startswith("error")
    ]
    assert f"error: process {1 - rank} of 2 lost another one, and the job ends" in stated
    assert torch.load(tmp_path / "out" / "last.ckpt", weights_only=True)["global_step"] == 2
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert start_group(2, lambda number: in_job(tmp_path, ("--ckpt_path=last",), number), tmp_path) == [0, 0]
    assert torch.load(tmp_path / "out" / "last.ckpt", weights_only=True)["global_step"] == 3
