"""Rounds with several updates in the training step: counted, logged, resumed, shared among ranks."""

import multiprocessing
import os
import signal
import warnings
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback

from rlr.callbacks import Checkpointing, SafeCheckpointIO
from rlr.data import PromptBatch, Prompts
from rlr.estimators import (
    DDPO,
    GRPO,
    GroupStatistics,
    HalfOrder,
    ImportanceRatio,
    Penalty,
    PromptStatistics,
    RoundStatistics,
    ScoreFunction,
    Unscaled,
    Zero,
    statistics,
)
from rlr.modules import Alignment
from rlr.samplers import DDIM, RandomWindow, Windowed
from tests.modules.test_ddp import Leave
from tests.modules.toy import WORDS, AffineModel, Hard, Level, Remembering, align, prompts, run, weights

D = 12
"""The dimensions of the toy's latents."""


def sgd(w):
    return torch.optim.SGD(w, 1.0)


def ddpo(**settings):
    """Two minibatches, two epochs: four updates a round."""
    clipped = {
        "num_minibatches": 2,
        "epochs": 2,
        "surrogate": ImportanceRatio(0.05),
        "statistics": PromptStatistics(4, 2),
    }
    return DDPO(**{**clipped, **settings})


def module(estimator=None, **settings):
    """Rounds of two batches, of a black box."""
    toy = {"model": AffineModel(dtype="float64", frozen=False), "reward": Hard(), "accumulate": 2}
    return align(**{**toy, "estimator": estimator or ddpo(), **settings})


def test_one_update_is_reinforce_s_over_the_dimension():
    """Over two batches, with SGD: the weights move D times less far."""
    plain = DDPO(1, surrogate=ScoreFunction(), statistics=Unscaled(Zero()), advantage_clip=None, mean_over_steps=False)
    ratio = DDPO(1, statistics=Unscaled(Zero()), advantage_clip=None, mean_over_steps=False, minibatch=3)
    moved = []
    for estimator in (HalfOrder(1, baseline=Zero()), plain, ratio):
        one = module(estimator, optimizer=sgd)
        start = weights(one)
        run(one, prompts(4), 1, precision="64-true")
        assert one.progress.batches == 2
        moved.append(weights(one) - start)
    assert moved[0].norm() > 0.1
    for found in moved[1:]:
        torch.testing.assert_close(D * found, moved[0], rtol=1e-9, atol=1e-12)


def test_a_round_makes_its_updates_and_all_is_counted():
    one, steps = module(), []
    step = one.training_step
    one.training_step = lambda *args: (step(*args), steps.append(one.trainer.global_step))[0]
    run(one, prompts(4), 8)
    assert steps == [0, 4, 4, 8]
    assert vars(one.progress) == {
        "batches": 4,
        "samples": 16,
        "updates": 8,
        "reward_calls": 16,
        "running": one.progress.running,
    }


def test_rollouts_are_of_the_weights_at_the_beginning_of_the_round():
    one, seen = module(), []
    sample = one._sample
    one._sample = lambda *args: seen.append(weights(one).clone()) or sample(*args)
    run(one, prompts(4), 8)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], seen[3])
    assert not torch.equal(seen[1], seen[2])


def test_max_steps_ends_inside_a_round_and_says_so():
    one = module()
    with pytest.warns(UserWarning, match="max_steps=6 ends inside a round of 4 updates"):
        trainer = run(one, prompts(4), 6)
    assert trainer.global_step == one.progress.updates == 6
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*ends inside a round.*")
        run(module(), prompts(4), 8)


def test_warm_up_and_decay_count_updates():
    one, rates = module(warmup=3, decay_steps=3, lr=0.04), []
    step = one.on_before_optimizer_step
    one.on_before_optimizer_step = lambda o: rates.append(o.param_groups[0]["lr"]) or step(o)
    run(one, prompts(4), 8)
    expected = [1 / 3, 2 / 3, 1, 1, 1, 0.75, 0.5, 0.25]
    assert rates == pytest.approx([0.04 * rate for rate in expected])


def test_it_raises_the_reward():
    batch = PromptBatch(16 * list(WORDS), list(range(128)))
    one = module(ddpo(surrogate=ImportanceRatio(0.2), statistics=PromptStatistics(16, 8)), lr=0.03, accumulate=1)
    before = one.generate(batch).rewards.mean()
    run(one, prompts(64), 60)
    assert one.generate(batch).rewards.mean() > before + 0.08


def logged(one, steps, **settings):
    """What the estimator measures, by round."""
    found, metrics = [], one.estimator.metrics
    one.estimator.metrics = lambda: found.append(metrics()) or found[-1]
    run(one, prompts(4), steps, **settings)
    return found


def test_what_is_logged_of_a_round():
    first, second = logged(module(clip_norm=1.0), 8)
    for found in (first, second):
        assert found["ddpo/ratio_first"] == 1.0
        assert found["ddpo/approx_kl"] > 0
        assert 0 < found["ddpo/clip_fraction"] < 1


def test_terms_and_sections_are_logged():
    one = module(reward=Level())
    metrics = run(one, prompts(4), 4).logged_metrics
    assert metrics["gradient/half_order"] == pytest.approx(metrics["gradient/total"].item(), rel=1e-4)
    for section in ("rollout", "half_order", "optimizer"):
        assert metrics[f"seconds/{section}"] > 0


def test_a_replay_in_another_mode_is_stated():
    """Dropout that is left on in training is the classic one."""
    one = module()
    learn = one._learn

    def careless(*args):
        one.chain.model.dropout.train(True)
        try:
            return learn(*args)
        finally:
            one.chain.model.dropout.train(False)

    one._learn = careless
    with pytest.warns(UserWarning, match="expected a likelihood ratio of 1 before the first update"):
        run(one, prompts(4), 4)


def test_a_bad_reward_skips_its_round_and_counts_as_one_update():
    class Moody(Hard):
        calls = 0

        def forward(self, samples, texts):
            self.calls += 1
            return super().forward(samples, texts) * (float("nan") if self.calls == 2 else 1)

    one = module(reward=Moody(), max_bad_steps=2)
    with pytest.warns(
        UserWarning, match=r"the reward Moody returned scores that are not finite for 4 of 4 .*; this update is skipped"
    ):
        run(one, prompts(4), 4)
    assert vars(one.progress) == {**vars(one.progress), "batches": 4, "updates": 4}
    assert one.updater.failures == 0
    assert weights(one).isfinite().all()


def test_a_bad_update_leaves_the_others_of_its_round():
    class Faulty(DDPO):
        calls = 0

        def minibatch_terms(self, minibatch):
            for term in super().minibatch_terms(minibatch):
                self.calls += 1
                yield term.scaled(float("nan") if self.calls == 6 else 1)

    one = module(Faulty(num_minibatches=2, epochs=2))
    with pytest.warns(UserWarning, match="half_order term of steps t = 3 is not finite"):
        run(one, prompts(4), 3)
    assert one.progress.batches == 2
    assert one.progress.updates == 3


def test_the_divergence_is_fined_in_every_update():
    settings = {"model": Remembering(frozen=False), "log_kl_every": 1}
    free, held = (module(**{**settings, "model": Remembering(frozen=False)}, penalty=p) for p in (None, Penalty(5.0)))
    for one in (free, held):
        run(one, prompts(4), 24)
    assert held.trainer.callback_metrics["kl/path"] < 0.5 * free.trainer.callback_metrics["kl/path"]
    with pytest.raises(
        ValueError, match=r"penalty\.full needs rollouts of the present weights, and DDPO makes 4 updates of a round"
    ):
        module(**settings, penalty=Penalty(1.0, full=True))


# ---------------------------------------------------------------- resuming

ROUNDS, UPDATES = 4, 16


def data():
    """Five prompts, so that they repeat, and epochs that end inside a round."""
    return Prompts(list(WORDS[:5]), batch_size=4, samples_per_prompt=2)


def train(folder, steps=UPDATES, resume=False, kill=None, every=1, **settings):
    one = module(model=AffineModel(frozen=False), clip_norm=0.5, warmup=6, **settings)
    if kill is not None:
        torch.set_num_threads(1)  # a forked child has none of its parent's threads
        step = one.training_step

        def deadly(batch, batch_idx):
            if one.progress.batches == kill:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(batch, batch_idx)

        one.training_step = deadly
    run(
        one,
        data(),
        steps,
        enable_checkpointing=True,
        callbacks=[Checkpointing(every, str(folder), keep=True)],
        plugins=[SafeCheckpointIO()],
        ckpt_path=str(folder / "last.ckpt") if resume else None,
    )
    return one


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"))


def test_checkpoints_are_written_when_a_multiple_is_passed(tmp_path):
    train(tmp_path, every=6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "step=12.ckpt", "step=8.ckpt"]


@pytest.mark.parametrize("kill", [3, 6])
def test_a_killed_run_resumes_bit_for_bit(uninterrupted, tmp_path, kill):
    """Batch 3 is inside a round, batch 6 begins one."""
    child = multiprocessing.get_context("fork").Process(target=train, args=(tmp_path, UPDATES, False, kill))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    resumed = train(tmp_path, resume=True)
    assert torch.equal(weights(resumed), weights(uninterrupted))
    assert resumed.progress == uninterrupted.progress


def stopped(folder, batches=5, **settings):
    """Saves a checkpoint inside a round."""
    one = module(model=AffineModel(frozen=False), clip_norm=0.5, warmup=6, **settings)
    step = one.training_step

    def saving(batch, batch_idx):
        step(batch, batch_idx)
        if one.progress.batches == batches:
            one.trainer.should_stop = True

    one.training_step = saving
    trainer = run(one, data(), UPDATES, plugins=[SafeCheckpointIO()], min_steps=0, min_epochs=0)
    assert len(one.state.round) == 1
    trainer.save_checkpoint(folder / "last.ckpt")


@pytest.mark.parametrize("batches", [1, 5])
def test_resuming_inside_a_round_samples_its_rollouts_again(uninterrupted, tmp_path, batches):
    stopped(tmp_path, batches)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["alignment"]
    assert [one["number"] for one in state["round"]] == [4 * (batches - 1)]
    # no states of the chain
    assert (tmp_path / "last.ckpt").stat().st_size < 40_000
    resumed = train(tmp_path, resume=True)
    assert torch.equal(weights(resumed), weights(uninterrupted))
    assert resumed.progress == uninterrupted.progress


def grpo():
    """Four updates a round, and a window that each round draws."""
    settings = {"surrogate": ImportanceRatio(0.05), "statistics": GroupStatistics(), "kl": 0.0}
    estimator = GRPO(num_minibatches=2, epochs=2, skip_last=0, **settings)
    return {"estimator": estimator, "sampler": Windowed(DDIM(4), RandomWindow(1, within=4))}


def test_rounds_that_are_sampled_again_keep_their_window(tmp_path, monkeypatch):
    places, sample = [], Alignment._sample

    def recorded(self, *args):
        rollout = sample(self, *args)
        places.append(rollout.chain.sampler.noisy(rollout.chain.grid))
        return rollout

    monkeypatch.setattr(Alignment, "_sample", recorded)
    whole = train(tmp_path / "whole", **grpo())
    # two batches a round
    assert places[::2] == places[1::2]
    assert len(set(places)) > 1
    (tmp_path / "part").mkdir()
    stopped(tmp_path / "part", **grpo())
    resumed = train(tmp_path / "part", resume=True, **grpo())
    assert torch.equal(weights(resumed), weights(whole))
    # another window would be seen
    stopped(tmp_path / "part", **grpo())
    monkeypatch.setattr(Alignment, "_round", lambda self: 7)
    other = train(tmp_path / "part", resume=True, **grpo())
    assert not torch.equal(weights(other), weights(whole))


@pytest.mark.parametrize("key", ["number", "prompts"])
def test_the_law_can_fail(uninterrupted, tmp_path, key):
    """With other noises or prompts for the rollouts of the round, the resumed run ends elsewhere."""
    stopped(tmp_path)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    kept = checkpoint["alignment"]["round"][0]
    kept[key] = 17 if key == "number" else [[{"prompt": "seven"} for _ in prompts] for prompts in kept["prompts"]]
    torch.save(checkpoint, tmp_path / "last.ckpt")
    assert not torch.equal(weights(train(tmp_path, resume=True)), weights(uninterrupted))


def test_a_round_that_the_processes_cannot_share_begins_again(tmp_path, monkeypatch):
    stopped(tmp_path)
    monkeypatch.setattr("rlr.modules.round.world_size", lambda: 3)
    with pytest.warns(UserWarning, match="a round of 4 samples a batch, which 3 processes cannot share evenly"):
        resumed = train(tmp_path, resume=True)
    assert weights(resumed).isfinite().all()


# ---------------------------------------------------------------- ranks


def two(folder, batch_size, steps, estimator, **settings):
    callbacks = [Leave(folder), *settings.pop("callbacks", [])]
    one = module(estimator, clip_norm=0.1)
    run(
        one,
        prompts(batch_size),
        steps,
        strategy="ddp_fork",
        devices=2,
        callbacks=callbacks,
        precision="64-true",
        **settings,
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_statistics_of_each_rank_alone_would_be_noticed(tmp_path, monkeypatch):
    """The law above can fail: a forked process inherits what is patched here."""
    monkeypatch.setattr(statistics, "gather", lambda values: values.unsqueeze(0))
    monkeypatch.setattr(statistics, "gather_texts", lambda texts: [list(texts)])
    monkeypatch.setattr(statistics, "rank", lambda: 0)
    one = module(ddpo(num_minibatches=1), clip_norm=0.1)
    run(one, prompts(4), 8, precision="64-true")
    left = two(tmp_path, 2, 8, ddpo(num_minibatches=1))
    assert (left[0]["weights"] - weights(one)).abs().max() > 1e-4


class SaveAfter(Callback):
    """Saves a checkpoint after so many batches."""

    def __init__(self, batches, path):
        self.batches, self.path = batches, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.progress.batches == self.batches:
            trainer.save_checkpoint(self.path)


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_pair_that_resumes_inside_a_round_equals_an_uninterrupted_one(tmp_path):
    def trained(folder, **settings):
        (tmp_path / folder).mkdir(exist_ok=True)
        settings = {"plugins": [SafeCheckpointIO()], **settings}
        return two(tmp_path / folder, 2, 8, ddpo(), **settings)

    whole = trained("whole")
    path = str(tmp_path / "inside.ckpt")
    trained("part", callbacks=[SaveAfter(3, path)])
    assert len(torch.load(path, weights_only=True)["alignment"]["round"]) == 1
    resumed = trained("part", ckpt_path=path)
    assert torch.equal(resumed[0]["weights"], whole[0]["weights"])
    assert torch.equal(resumed[1]["weights"], whole[0]["weights"])


# ---------------------------------------------------------------- what ranks share


def pair(folder, estimator, data, steps, **settings):
    """Trains two forked processes on their halves of the data and returns what they left."""
    ranks = {"strategy": "ddp_fork", "devices": 2, "precision": "64-true"}
    run(module(estimator, clip_norm=0.1), data, steps, callbacks=[Leave(folder), Tell(folder)], **ranks, **settings)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


class Tell(Callback):
    """Leaves behind what was logged of ratios."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        ratio = trainer.callback_metrics["ddpo/ratio_first"]
        torch.save(ratio.item(), self.folder / f"ratio_{trainer.global_rank}.pt")


class Backwards(PromptStatistics):
    """Sabotage: rewards are remembered in the order of another run."""

    def _remember(self, prompts, rewards):
        super()._remember(prompts[::-1], rewards.flip(0))


STATISTICS = {
    "overflowing": lambda: PromptStatistics(3, 2),
    "round": RoundStatistics,
    "backwards": lambda: Backwards(3, 2),
}


def repeating(name, batch_size):
    """Four rewards of a prompt in a round, on both ranks; the order of the run decides which three are kept."""
    return ddpo(num_minibatches=1, statistics=STATISTICS[name]()), Prompts(4 * list(WORDS[1:3]), batch_size=batch_size)


@pytest.mark.filterwarnings("ignore:.*fork.*")
@pytest.mark.parametrize("name", ["overflowing", "round"])
def test_statistics_of_two_processes_equal_those_of_one(tmp_path, name):
    found = {}
    for statistics_ in (name, "backwards"):
        estimator, data = repeating(statistics_, 4)
        one = module(estimator, clip_norm=0.1)
        run(one, data, 8, precision="64-true")
        found[statistics_] = weights(one)
    estimator, data = repeating(name, 2)
    for rank in pair(tmp_path, estimator, data, 8):
        torch.testing.assert_close(rank["weights"], found[name], atol=1e-6, rtol=0)
    assert (found[name] - found["backwards"]).abs().max() > 1e-4


class Askew(DDPO):
    """Sabotage: the ratios are 1.01 on rank 0 and 0.98 on rank 1."""

    def record(self, *args):
        made = super().record(*args)
        change = torch.tensor([1.01, 0.98][torch.distributed.get_rank()]).log()
        return replace(made, log_probs=made.log_probs - change)


@pytest.mark.filterwarnings("ignore:.*fork.*", "ignore:.*must be 1.*")
def test_the_first_ratio_is_the_farthest_of_all_ranks(tmp_path):
    pair(tmp_path, Askew(num_minibatches=1), prompts(2), 1)
    for rank in range(2):
        assert torch.load(tmp_path / f"ratio_{rank}.pt", weights_only=True) == pytest.approx(0.98, abs=1e-6)


def test_a_wrong_ratio_is_stated_before_the_weights_change():
    class Shifted(DDPO):
        def record(self, *args):
            made = super().record(*args)
            return replace(made, log_probs=made.log_probs + 0.01)

    one, stated_before = module(Shifted()), []
    step = one.on_before_optimizer_step
    with warnings.catch_warnings(record=True) as stated:
        warnings.simplefilter("always")
        one.on_before_optimizer_step = lambda o: (
            stated_before.append(sum("expected a likelihood ratio of 1" in str(warning.message) for warning in stated))
            or step(o)
        )
        run(one, prompts(4), 4)
    assert stated_before == [1, 1, 1, 1]
