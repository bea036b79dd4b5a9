"""A reward that is NaN for one sample of a hundred: the updates with such a sample are skipped, and no other one notices."""

import random
import warnings
from copy import deepcopy

import pytest
import torch
from lightning.pytorch import Callback

from rlr.estimators import DDPO, HalfOrder, RoundStatistics
from tests.modules.toy import Level, Replay, align, prompts, run, weights

BATCHES, BATCH, SHARE = 25, 16, 0.01
_draw = random.Random(0).random
BAD = [[_draw() < SHARE for _ in range(BATCH)] for _ in range(BATCHES)]
"""Which samples have no score, by batch."""
SKIPPED = [number for number, row in enumerate(BAD) if any(row)]
ESTIMATORS = {
    "first order": Replay,
    "half order": lambda: HalfOrder(2),
    "ddpo": lambda: DDPO(2, statistics=RoundStatistics()),
}


class Sometimes(Level):
    """NaN for the samples that are named."""

    bad = (False,) * BATCH

    def forward(self, samples, prompts):
        return super().forward(samples, prompts).where(~torch.tensor(self.bad), torch.nan)


class Name(Callback):
    """Names the bad samples of each batch to the reward, and keeps the weights after it."""

    def __init__(self):
        self.weights = []

    def on_train_start(self, trainer, pl_module):
        self.weights.append(weights(pl_module))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pl_module.reward.bad = BAD[pl_module.progress.batches]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights.append(weights(pl_module))


class Undo(Callback):
    """Takes weights and optimizer back to where they were before some batches."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.number = pl_module.progress.batches
        self.before = deepcopy((pl_module.state_dict(), trainer.optimizers[0].state_dict()))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.number in SKIPPED:
            pl_module.load_state_dict(self.before[0])
            trainer.optimizers[0].load_state_dict(self.before[1])


def trained(name, reward, callback):
    """A run of all batches."""
    module = align(reward=reward, estimator=ESTIMATORS[name](), lr=0.01, clip_norm=1.0)
    run(module, prompts(BATCH), -1, max_epochs=BATCHES, callbacks=[callback])  # an epoch has one batch
    assert module.progress.batches == BATCHES
    return module


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_score_of_a_hundred_that_is_nan_costs_its_update_and_nothing_else(name):
    """The run is that of a reward which always has a score, without the updates of those batches, to the bit."""
    assert (len(SKIPPED), sum(map(sum, BAD))) == (5, 5)
    kept = Name()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        module = trained(name, Sometimes(), kept)
    stated = [str(one.message) for one in said if "this update is skipped" in str(one.message)]
    assert stated
    assert all("the reward Sometimes returned scores that are not finite for" in text for text in stated)
    unchanged = [number for number in range(BATCHES) if torch.equal(*kept.weights[number : number + 2])]
    assert unchanged == SKIPPED
    assert module.progress.updates == (BATCHES - len(SKIPPED)) * module.estimator.updates_per_round
    assert module.updater.failures == 0
    assert all(found.isfinite().all() for found in kept.weights)
    whole = trained(name, Level(), Undo())
    assert torch.equal(weights(module), weights(whole))
    assert (weights(module) - kept.weights[0]).norm() > 0.1
