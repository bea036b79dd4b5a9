"""A run that is killed and resumed ends with the very weights of one that was not."""

import multiprocessing
import os
import random
import signal
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from rlr.callbacks import EMA, Checkpointing, SafeCheckpointIO
from rlr.data import Prompts
from rlr.estimators import DDPO, RLR, FirstOrder, HalfOrder, PromptStatistics, RunningMean
from rlr.models import StagedPrompt
from rlr.modules.gradients import GradientAccumulator
from rlr.rewards import Combine, RunningZScore
from tests.modules.toy import WORDS, Level, align, run, weights

STEPS, BATCHES = 14, 2


class Noisy(Level):
    """Adds noise from all three global generators, whose states must come back, too."""

    def forward(self, samples: Tensor, prompts: list[str]) -> Tensor:
        noise = torch.rand(()).item() + np.random.rand() + random.random()
        return super().forward(samples, prompts) * (1 + noise)


def estimator() -> RLR:
    """RLR with a running mean as its baseline, which is state of the estimator."""
    return RLR(length=2, zeroth=False, baseline=RunningMean())


def build():
    """A module whose every kind of state matters: Adam, warm-up, accumulation, estimator, reward, global generators."""
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    reward = Combine({"noisy": Noisy()}, {"noisy": 1.0}, RunningZScore())
    return align(estimator=estimator(), reward=reward, warmup=6, accumulate=BATCHES, clip_norm=0.5)


def data():
    """Five prompts, four of them staged, two samples each, in batches of four: three an epoch, so epochs end in rounds."""
    staged = [StagedPrompt(word, (other, word), (0.25,)) for word, other in pairwise(WORDS[:5])]
    return Prompts([*staged, WORDS[4]], batch_size=4, samples_per_prompt=2)


def train(folder: Path, steps: int, resume: bool = False, kill: int | None = None, every: int = 1, **settings):
    """Trains and saves; ``kill`` sends SIGKILL to this process in that batch, inside a round or at its beginning."""
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
    """Batches 3 and 13 are inside a round, 13 and 22 beyond the last checkpoint."""
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


def stop_after(folder: Path, batches: int, module) -> dict:
    """Trains for so many batches, saves a checkpoint, and returns what it holds of the module."""
    step = module.training_step

    def stopping(batch, batch_idx):
        step(batch, batch_idx)
        if module.progress.batches == batches:
            module.trainer.should_stop = True

    module.training_step = stopping
    trainer = run(module, data(), STEPS, plugins=[SafeCheckpointIO()], min_steps=0, min_epochs=0)
    assert module.progress.batches == batches
    trainer.save_checkpoint(folder / "last.ckpt")
    return torch.load(folder / "last.ckpt", weights_only=True)["alignment"]


@pytest.mark.parametrize("batches", [1, 7])
def test_resuming_inside_a_round_samples_its_rollouts_again(uninterrupted, tmp_path, batches):
    """After the first of two batches; the very first one has given the reward its first statistics."""
    state = stop_after(tmp_path, batches, build())
    assert [one["number"] for one in state["round"]] == [4 * (batches - 1)]
    resumed = train(tmp_path, STEPS, resume=True)
    assert torch.equal(weights(resumed), weights(uninterrupted))
    assert resumed.progress == uninterrupted.progress


def test_a_staged_prompt_of_a_round_comes_back_staged(tmp_path):
    (kept,) = stop_after(tmp_path, 1, build())["round"]
    (prompts,) = kept["prompts"]
    staged = [prompt for prompt in prompts if "stages" in prompt]
    assert staged
    for prompt in staged:
        following = WORDS[WORDS.index(prompt["prompt"]) + 1]
        assert prompt == {"prompt": prompt["prompt"], "stages": [following, prompt["prompt"]], "starts": [0.25]}


def test_a_round_of_other_prompts_would_be_noticed(uninterrupted, tmp_path):
    """The law can fail: without its stages, a prompt gives another rollout."""
    stop_after(tmp_path, 1, build())
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for prompts in checkpoint["alignment"]["round"][0]["prompts"]:
        prompts[:] = [{"prompt": prompt["prompt"]} for prompt in prompts]
    torch.save(checkpoint, tmp_path / "last.ckpt")
    assert not torch.equal(weights(train(tmp_path, STEPS, resume=True)), weights(uninterrupted))


def test_epochs_cut_short_go_on_in_the_stream(uninterrupted, tmp_path):
    """However an epoch is limited, the prompts come in the same order."""
    limited = train(tmp_path, STEPS, limit_train_batches=3)
    assert torch.equal(weights(limited), weights(uninterrupted))


# ---------------------------------------------------------------- interrupts


class Interrupted(Level):
    """Raises in the rollout of an update."""

    def __init__(self, call: int, error: BaseException) -> None:
        super().__init__()
        self.calls, self.call, self.error = 0, call, error

    def forward(self, samples: Tensor, prompts: list[str]) -> Tensor:
        self.calls += 1
        if self.calls == self.call:
            raise self.error
        return super().forward(samples, prompts)


def interrupted_run(folder: Path, steps: int, reward: Level, resume: bool = False):
    """A run whose scheduled checkpoints come too late."""
    module = align(estimator=estimator(), reward=reward, warmup=6, clip_norm=0.5)
    path = str(folder / "last.ckpt") if resume else None
    keeper = Checkpointing(1000, str(folder))
    run(
        module,
        data(),
        steps,
        enable_checkpointing=True,
        callbacks=[keeper, EMA(0.9)],
        plugins=[SafeCheckpointIO()],
        ckpt_path=path,
    )
    return module


@pytest.mark.parametrize("error", [KeyboardInterrupt, SIGTERMException, ZeroDivisionError], ids=lambda e: e.__name__)
@pytest.mark.parametrize("place", ["rollout", "backward"])
def test_an_interrupt_loses_only_the_update_that_it_interrupts(tmp_path, monkeypatch, place, error):
    # the mistake of a reward is stated as one sentence
    stated = {ZeroDivisionError: ValueError} if place == "rollout" else {}
    left = {KeyboardInterrupt: SystemExit, **stated}.get(error, error)
    add, seen = GradientAccumulator.add, []

    def interrupted(self, *arguments):
        seen.append(add(self, *arguments))
        if len(seen) == 7:
            raise error

    with monkeypatch.context() as patch:
        if place == "backward":
            patch.setattr(GradientAccumulator, "add", interrupted)
        reward = Interrupted(5, error()) if place == "rollout" else Level()
        with pytest.raises(left):
            interrupted_run(tmp_path, 8, reward)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["global_step"] == kept["alignment"]["progress"]["batches"] > 0
    resumed = interrupted_run(tmp_path, 8, Level(), resume=True)
    whole = interrupted_run(tmp_path / "whole", 8, Level())
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.progress == whole.progress


def test_an_interrupt_in_the_middle_of_the_step_of_the_optimizer_is_without_effect(tmp_path, monkeypatch):
    """Some weights are of the next update, and others are not; the copy has neither."""
    step = torch.optim.AdamW.step

    def torn(self, closure=None):
        result = step(self, closure)
        if self.param_groups[0]["params"][0].grad is not None and self.state_dict()["state"][0]["step"] == 4:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", torn)
        with pytest.raises(SystemExit):
            interrupted_run(tmp_path, 8, Level())
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3
    resumed = interrupted_run(tmp_path, 8, Level(), resume=True)
    assert torch.equal(weights(resumed), weights(interrupted_run(tmp_path / "whole", 8, Level())))


def test_without_a_copy_the_file_of_the_schedule_stays(tmp_path, monkeypatch):
    """The law can fail: without its copies, an interrupted run has no checkpoint."""
    monkeypatch.setattr("rlr.callbacks.checkpointing.MOST_KEPT", 0)
    with pytest.raises(ValueError, match="the reward Interrupted: expected scores, got ZeroDivisionError"):
        interrupted_run(tmp_path, 8, Interrupted(8, ZeroDivisionError()))
    assert not (tmp_path / "last.ckpt").exists()


def test_a_checkpoint_is_written_when_the_last_one_is_old(tmp_path):
    keeper, seconds = Checkpointing(1000, str(tmp_path), minutes=1.0), iter(range(0, 10_000, 25))
    keeper.clock = lambda: float(next(seconds))
    written = []
    keeper._save_last_checkpoint = lambda trainer, candidates: written.append(trainer.global_step)
    run(align(), data(), 8, enable_checkpointing=True, callbacks=[keeper])
    # the clock goes on by 25 s a look: two looks at updates, or one and that after a write
    assert written[:2] == [3, 6]


# ---------------------------------------------------------------- checkpoints of other runs

ESTIMATORS = {
    "first order": FirstOrder,
    "half order": lambda: HalfOrder(2),
    "rlr": lambda: RLR(length=2),
    "ddpo": lambda: DDPO(1, statistics=PromptStatistics(4, 2)),
}


def saved(folder: Path, **settings) -> str:
    trainer = run(align(**settings), data(), 1, plugins=[SafeCheckpointIO()])
    trainer.save_checkpoint(folder / "other.ckpt")
    return str(folder / "other.ckpt")


def sampled(module, path: str):
    """Validates, tests and predicts with a checkpoint, and returns the predictions."""
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(enable_model_summary=False, plugins=[SafeCheckpointIO()], **silent)
    judged = Prompts(["one"], val=["one"], test=["one"], predict=["one", "six"], batch_size=2)
    for look in (trainer.validate, trainer.test):
        look(module, datamodule=judged, ckpt_path=path, verbose=False)
    (prediction,) = trainer.predict(module, datamodule=judged, ckpt_path=path)
    return prediction


def test_one_module_samples_from_checkpoints_of_all_estimators(tmp_path):
    judge, found = align(estimator=HalfOrder(2, baseline=RunningMean())), []
    for make in ESTIMATORS.values():
        path = saved(tmp_path, estimator=make())
        found.append(sampled(judge, path).samples)
        assert torch.equal(found[-1], sampled(align(estimator=make()), path).samples)
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize(
    ("before", "after"),
    [("first order", "half order"), ("half order", "ddpo"), ("ddpo", "rlr"), ("ddpo", "first order")],
)
def test_resuming_with_another_estimator_states_both(tmp_path, before, after):
    path, module = saved(tmp_path, estimator=ESTIMATORS[before]()), align(estimator=ESTIMATORS[after]())
    names = (type(ESTIMATORS[before]()).__name__, type(module.estimator).__name__)
    stated = r"other\.ckpt was written with the estimator {}; the run continues with the estimator {}".format(*names)
    with pytest.warns(UserWarning, match=stated):
        run(module, data(), 2, plugins=[SafeCheckpointIO()], ckpt_path=path)
    assert module.progress.updates == 2


def rates(trainer) -> list[float]:
    """The learning rates of a trainer's optimizer, and those to which its schedule refers."""
    (optimizer,) = trainer.optimizers
    bases = [rate for config in trainer.lr_scheduler_configs for rate in config.scheduler.base_lrs]
    return [*(group["lr"] for group in optimizer.param_groups), *bases]


@pytest.mark.parametrize("warmup", [0, 4])
def test_another_learning_rate_on_resuming_is_used_and_stated(tmp_path, warmup):
    path = saved(tmp_path, lr=0.05, warmup=warmup)
    stated = r"other\.ckpt was written with lr 0\.05; the run continues with lr 0\.02"
    with pytest.warns(UserWarning, match=stated):
        trainer = run(align(lr=0.02, warmup=warmup), data(), 2, plugins=[SafeCheckpointIO()], ckpt_path=path)
    # in a warm-up of 4, update 2 is the third
    assert rates(trainer) == pytest.approx([0.02 * 3 / 4, 0.02] if warmup else [0.02])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*was written with.*")
        trainer = run(align(lr=0.05, warmup=warmup), data(), 2, plugins=[SafeCheckpointIO()], ckpt_path=path)
    assert rates(trainer) == pytest.approx([0.05 * 3 / 4, 0.05] if warmup else [0.05])


def test_state_that_the_estimator_lacks_is_refused_in_a_sentence(tmp_path):
    path, module = saved(tmp_path, estimator=HalfOrder(2)), align(estimator=HalfOrder(2, baseline=RunningMean()))
    stated = r"other\.ckpt was written with another HalfOrder: it holds no state '\w+', which"
    with pytest.raises(ValueError, match=stated):
        run(module, data(), 2, plugins=[SafeCheckpointIO()], ckpt_path=path)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda state: state["alignment"].pop("version"), "got 1;"),
        (lambda state: state["alignment"].update(version=3), "got 3;"),
        (lambda state: state.pop("alignment"), "got one of another module;"),
    ],
)
def test_a_checkpoint_of_another_version_is_refused_in_a_sentence(tmp_path, spoil, found):
    path = saved(tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    spoil(checkpoint)
    torch.save(checkpoint, path)
    stated = rf"other\.ckpt is no checkpoint of this version of Alignment; expected version 2, {found}"
    with pytest.raises(ValueError, match=stated):
        sampled(align(), path)
    with pytest.raises(ValueError, match=stated):
        run(align(), data(), 2, plugins=[SafeCheckpointIO()], ckpt_path=path)
