"""SIGTERM to any process of a job ends all of them at one batch, and the resumed job equals an uninterrupted one."""

import os
import signal
import sys
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from rlr.callbacks import Checkpointing, Preemption, SafeCheckpointIO
from rlr.estimators import DDPO, HalfOrder
from tests.modules.processes import start_group
from tests.modules.toy import AffineModel, Hard, align, prompts, run, weights

STEPS = 6


class Signals(Callback):
    """Sends SIGTERM to its own process in the middle of a batch, given by rank."""

    def __init__(self, batches):
        self.batches = batches

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if pl_module.progress.batches == self.batches.get(trainer.global_rank):
            os.kill(os.getpid(), signal.SIGTERM)


def train(folder: Path, estimator, resume: bool, batches=None):
    module = align(model=AffineModel(dtype="float64"), reward=Hard(), estimator=estimator(), accumulate=2)
    run(
        module,
        prompts(2),
        STEPS,
        strategy="ddp",
        devices=2,
        precision="64-true",
        enable_checkpointing=True,
        callbacks=[Checkpointing(1000, str(folder)), Preemption(), Signals(batches or {})],
        plugins=[SafeCheckpointIO()],
        ckpt_path=str(folder / "last.ckpt") if resume else None,
    )
    return module


def process(folder: Path, args, rank: int):
    """What each process does; its status is 143 after SIGTERM, as the command line has it."""
    with open(folder / f"{rank}.log", "w") as log:
        sys.stdout = sys.stderr = log
        try:
            module = train(folder, *args)
        except SIGTERMException:
            log.flush()
            os._exit(143)
        torch.save(weights(module), folder / f"{rank}.pt")


def job(folder: Path, *args) -> list[int | None]:
    """Runs two processes and returns their statuses."""
    folder.mkdir(exist_ok=True)
    return start_group(2, partial(process, folder, args), folder)


def left(folder: Path):
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def ddpo():
    return DDPO(2)


def half_order():
    return HalfOrder(2)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What each estimator ends with."""

    @cache
    def weights_of(estimator):
        folder = tmp_path_factory.mktemp("whole")
        assert job(folder, estimator, False) == [0, 0], (folder / "0.log").read_text()
        return left(folder)

    return weights_of


CASES = [(half_order, {1: 4}), (half_order, {0: 4}), (ddpo, {0: 4, 1: 6})]


@pytest.mark.parametrize(("estimator", "batches"), CASES, ids=["second", "first", "both"])
def test_a_preempted_job_resumes_bit_for_bit(uninterrupted, tmp_path, estimator, batches):
    cut = tmp_path / "cut"
    assert job(cut, estimator, False, batches) == [143, 143], (cut / "0.log").read_text()
    progress = torch.load(cut / "last.ckpt", weights_only=True)["alignment"]["progress"]
    assert progress["batches"] == 4
    assert job(cut, estimator, True) == [0, 0], (cut / "0.log").read_text()
    for one, other in zip(uninterrupted(estimator), left(cut), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(*left(cut))
