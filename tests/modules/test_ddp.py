"""Two processes that share a batch do what one process does with the whole of it."""

import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from rlr.callbacks import Checkpointing, SafeCheckpointIO
from rlr.estimators import (
    DDPO,
    RLR,
    AlignProp,
    HalfOrder,
    HalfOrderRLR,
    LookAhead,
    RoundStatistics,
    ZerothOrder,
)
from rlr.modules.update import Updater
from tests.modules.toy import AffineModel, Level, Replay, align, prompts, run, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*")


class Leave(Callback):
    """Leaves behind what each rank ended with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer, pl_module):
        torch.set_num_threads(1)  # a forked process has none of its parent's threads

    def on_train_end(self, trainer, pl_module):
        left = {
            "weights": weights(pl_module),
            "progress": vars(pl_module.progress),
            "failures": pl_module.updater.failures,
            "reward": trainer.callback_metrics["reward/mean"],
            "total": trainer.callback_metrics["gradient/total"],
            "logged": dict(trainer.callback_metrics),
            "statistics": pl_module.reward.statistics(),
        }
        torch.save(left, self.folder / f"{trainer.global_rank}.pt")


class OnlyOnRank:
    """Spoils the loss on one rank, once."""

    def __init__(self, rank: int) -> None:
        self.rank, self.calls = rank, 0

    def __call__(self, loss):
        self.calls += 1
        rank = torch.distributed.get_rank()
        return loss * float("nan") if (rank, self.calls) == (self.rank, 2) else loss


class BadOnRank(Level):
    """Returns NaN on one rank, once."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank, self.calls = rank, 0

    def forward(self, samples, prompts):
        self.calls += 1
        bad = (torch.distributed.get_rank(), self.calls) == (self.rank, 2)
        return super().forward(samples, prompts) * (float("nan") if bad else 1)


ESTIMATORS = {
    "first order": lambda: Replay(steps=3, names=("a", "b")),
    "half order": lambda: HalfOrder(2, segments=1),
    "half-order rlr": lambda: HalfOrderRLR(length=1, control=LookAhead()),
    "rlr": lambda: RLR(length=2, zeroth=ZerothOrder(scale=1e-3)),
    "alignprop": AlignProp,
}


def build(estimator, **settings):
    return align(model=AffineModel(dtype="float64", frozen=False), estimator=estimator, clip_norm=0.1, **settings)


def two(module, folder, batch_size, steps, **settings):
    """Trains on two forked processes and returns what they left."""
    callbacks = [Leave(folder), *settings.pop("callbacks", [])]
    data = prompts(batch_size, **settings.pop("data", {}))
    run(module, data, steps, strategy="ddp_fork", devices=2, callbacks=callbacks, **settings)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize(
    ("estimator", "accumulate"),
    [("first order", 2), ("half order", 1), ("half order", 2), ("half-order rlr", 1), ("rlr", 1), ("alignprop", 2)],
)
def test_two_processes_equal_one(tmp_path, estimator, accumulate):
    one = build(ESTIMATORS[estimator](), accumulate=accumulate)
    trainer = run(one, prompts(4), 3, precision="64-true")
    left = two(build(ESTIMATORS[estimator](), accumulate=accumulate), tmp_path, 2, 3, precision="64-true")
    start = weights(build(Replay()))
    assert (weights(one) - start).norm() > 0.1
    for rank in left:
        torch.testing.assert_close(rank["weights"], weights(one), atol=1e-7, rtol=0)
        assert rank["progress"]["samples"] == one.progress.samples
        assert rank["progress"]["reward_calls"] == one.progress.reward_calls
        assert rank["total"] == pytest.approx(trainer.callback_metrics["gradient/total"].item(), rel=1e-5)
        assert rank["reward"] == pytest.approx(trainer.callback_metrics["reward/mean"].item(), rel=1e-5)


def test_gradients_that_are_not_averaged_would_be_noticed(tmp_path, monkeypatch):
    """The law above can fail: a forked process inherits what is patched here."""
    monkeypatch.setattr(Updater, "_average", lambda self, gradients: None)
    one = build(HalfOrder(2))
    run(one, prompts(4), 3, precision="64-true")
    left = two(build(HalfOrder(2)), tmp_path, 2, 3, precision="64-true")
    assert all((rank["weights"] - weights(one)).abs().max() > 1e-4 for rank in left)


@pytest.mark.parametrize(
    "estimator", [lambda: HalfOrder(2), lambda: DDPO(1, statistics=RoundStatistics())], ids=["half order", "ddpo"]
)
def test_a_bad_reward_on_one_process_skips_the_round_on_both(tmp_path, estimator):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not finite.*")
        left = two(build(estimator(), reward=BadOnRank(1)), tmp_path, 2, 3, precision="64-true")
    for rank in left:
        assert (rank["progress"]["batches"], rank["progress"]["updates"], rank["failures"]) == (4, 3, 0)
    assert torch.equal(left[0]["weights"], left[1]["weights"])
    assert left[0]["weights"].isfinite().all()


def test_a_failure_on_one_process_skips_the_update_on_both(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not finite.*")
        left = two(build(Replay(spoil=OnlyOnRank(1))), tmp_path, 2, 3, precision="64-true")
    assert [rank["progress"]["batches"] for rank in left] == [4, 4]
    assert torch.equal(left[0]["weights"], left[1]["weights"])
    assert left[0]["weights"].isfinite().all()


def test_a_resumed_pair_equals_an_uninterrupted_one(tmp_path):
    def saving(steps, folder, **settings):
        (tmp_path / folder).mkdir(exist_ok=True)
        extra = {
            "callbacks": [Checkpointing(1, str(tmp_path / folder))],
            "plugins": [SafeCheckpointIO()],
            "enable_checkpointing": True,
            "precision": "64-true",
        }
        return two(build(Replay()), tmp_path / folder, 2, steps, **extra, **settings)

    whole = saving(5, "whole")
    saving(3, "part")
    resumed = saving(5, "part", ckpt_path=str(tmp_path / "part" / "last.ckpt"))
    assert torch.equal(resumed[0]["weights"], whole[0]["weights"])
    assert torch.equal(resumed[1]["weights"], whole[0]["weights"])
