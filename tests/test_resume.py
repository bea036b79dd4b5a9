"""A run that is killed and resumed ends with the very weights of one that was not."""

import multiprocessing
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rlr.callbacks import Checkpointing, SafeCheckpointIO
from rlr.chain import Chain, Trajectory
from rlr.data import Prompts
from rlr.estimators import RLR, RunningMean
from rlr.estimators.base import Objective
from rlr.rewards import Combine, RunningZScore
from tests.modules.toy import WORDS, Level, align, run, weights

STEPS, BATCHES = 14, 2


class Noisy(Level):
    """Adds noise from all three global generators, whose states must come back, too."""

    def forward(self, samples: Tensor, prompts: list[str]) -> Tensor:
        noise = torch.rand(()).item() + np.random.rand() + random.random()
        return super().forward(samples, prompts) * (1 + noise)


class Remembering(RLR):
    """RLR with a running mean as its baseline, which is state of the estimator."""

    def __init__(self) -> None:
        super().__init__(length=2, zeroth=False, baseline=RunningMean())

    def losses(self, chain: Chain, trajectory: Trajectory, objective: Objective):
        yield from super().losses(chain, trajectory, objective)


def build():
    """A module whose every kind of state matters: Adam, warm-up, accumulation, estimator, reward, global generators."""
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    reward = Combine({"noisy": Noisy()}, {"noisy": 1.0}, RunningZScore())
    return align(estimator=Remembering(), reward=reward, warmup=6, accumulate=BATCHES, clip_norm=0.5)


def data():
    """Five prompts, two samples each, in batches of four: three batches an epoch, so epochs end inside an update."""
    return Prompts(list(WORDS[:5]), batch_size=4, samples_per_prompt=2)


def train(folder: Path, steps: int, resume: bool = False, kill: int | None = None, every: int = 1, **settings):
    """Trains and saves; ``kill`` sends SIGKILL to this process in that batch, between backward and update or later."""
    module = build()
    if kill is not None:
        torch.set_num_threads(1)  # a forked child has none of its parent's threads
        step = module.training_step

        def deadly(batch, batch_idx):
            if module.progress.batches == kill:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(batch, batch_idx)

        module.training_step = deadly
    run(
        module,
        data(),
        steps,
        enable_checkpointing=True,
        callbacks=[Checkpointing(every, str(folder))],
        plugins=[SafeCheckpointIO()],
        ckpt_path=str(folder / "last.ckpt") if resume else None,
        **settings,
    )
    return module


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"), STEPS)


@pytest.mark.parametrize(("kill", "every"), [(3, 1), (13, 3), (22, 4)])
def test_a_killed_run_resumes_bit_for_bit(uninterrupted, tmp_path, kill, every):
    """Batches 3 and 13 are inside an update, 13 and 22 beyond the last checkpoint."""
    child = multiprocessing.get_context("fork").Process(target=train, args=(tmp_path, STEPS, False, kill, every))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < saved <= kill // BATCHES
    resumed = train(tmp_path, STEPS, resume=True)
    assert torch.equal(weights(resumed), weights(uninterrupted))
    assert resumed.progress == uninterrupted.progress


def test_the_law_can_fail(uninterrupted, tmp_path):
    """Without the states of the global generators, the resumed run ends elsewhere."""
    train(tmp_path, 5)
    path = tmp_path / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    torch.manual_seed(99)
    checkpoint["alignment"]["random"]["torch"] = torch.get_rng_state()
    torch.save(checkpoint, path)
    assert not torch.equal(weights(train(tmp_path, STEPS, resume=True)), weights(uninterrupted))


def test_resuming_in_the_middle_of_an_update(uninterrupted, tmp_path):
    """A checkpoint saved after the first of two batches holds their half of the gradient."""
    module = build()
    step = module.training_step

    def saving(batch, batch_idx):
        step(batch, batch_idx)
        if module.progress.batches == 7:
            module.trainer.should_stop = True

    module.training_step = saving
    trainer = run(module, data(), STEPS, plugins=[SafeCheckpointIO()], min_steps=0)
    assert module.progress.batches == 7
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = train(tmp_path, STEPS, resume=True)
    assert torch.equal(weights(resumed), weights(uninterrupted))


def test_epochs_cut_short_go_on_in_the_stream(uninterrupted, tmp_path):
    """However an epoch is limited, the prompts come in the same order."""
    limited = train(tmp_path, STEPS, limit_train_batches=3)
    assert torch.equal(weights(limited), weights(uninterrupted))
