"""The alarm rings when training rises and held-out rewards fall, once an episode, and never otherwise."""

import re
import warnings

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from rlr.callbacks import Checkpointing, Evaluation, HackingAlarm, SafeCheckpointIO
from rlr.callbacks.hacking_alarm import mean, trend
from rlr.data import Prompts
from rlr.evaluation import Measurement, Results
from rlr.rewards import Brightness
from rlr.rewards.base import Reward
from tests.modules.toy import WORDS, align, run


def results(update, *levels, label="HPSv2.1", **facts):
    """An evaluation of 40 prompts whose scores differ by prompt far more than they move."""
    spread = torch.randn(40, 1, generator=torch.Generator().manual_seed(0))
    found = [
        Measurement(label if k == 0 else f"other {k}", spread + level, None, **facts) for k, level in enumerate(levels)
    ]
    return Results(update, {"hpdv2": found}, {"hpdv2": ["a"] * 40})


def trained(reward=None):
    """A module that is trained on a reward."""
    return align(reward=reward or Brightness())


def play(alarm, training, held_out, module=None, **facts):
    """Lets the alarm see ten batches between two evaluations, and returns the warnings by evaluation."""
    trainer, stated = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"), []
    module = module or trained()
    noise = torch.randn(10 * len(training), generator=torch.Generator().manual_seed(1)) * 0.1
    for k, level in enumerate(held_out):
        if k:
            for step in range(10):
                value = training[k - 1] + (training[k] - training[k - 1]) * step / 10 + noise[10 * k + step]
                trainer.callback_metrics["reward/mean"] = value
                alarm.on_train_batch_end(trainer, module, None, None, 0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            alarm.on_evaluation(trainer, module, results(10 * k, *level, **facts))
        stated.append([str(w.message) for w in caught])
    return stated, trainer


UP, DOWN, FLAT = [0, 1, 2, 3, 4, 5], [[5], [4], [3], [2], [1], [0]], [[0]] * 6


@pytest.mark.parametrize(
    ("training", "held_out", "rings"),
    [
        (UP, DOWN, True),
        (UP, FLAT, False),
        (UP, [[x] for x in UP], False),
        ([0] * 6, DOWN, False),
        (UP[::-1], DOWN, False),
        (UP, [[0, 5 - x] for x in UP], True),
    ],
    ids=["hacking", "no gain", "gain", "flat training", "all falls", "one of two falls"],
)
def test_rings_only_if_one_rises_and_the_other_falls(training, held_out, rings):
    stated, trainer = play(HackingAlarm(window=2), training, held_out)
    assert sum(map(len, stated)) == int(rings)
    assert not trainer.should_stop


def test_noise_alone_rarely_rings():
    rings, module = 0, trained()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        alarm, trainer = HackingAlarm(window=3), Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
        for k in range(6):
            for _ in range(20):
                trainer.callback_metrics["reward/mean"] = torch.randn((), generator=generator)
                alarm.on_train_batch_end(trainer, module, None, None, 0)
            scores = Measurement("HPSv2.1", torch.randn(30, 1, generator=generator))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                alarm.on_evaluation(trainer, module, Results(k, {"a": [scores]}, {"a": []}))
            rings += alarm.ringing
    # 120 looks, each with a chance of about 0.023²
    assert rings <= 3


def test_is_stated_once_an_episode():
    held_out = [[5], [4], [3], [2], [2], [2], [1], [0]]
    stated, _ = play(HackingAlarm(window=1), [0, 1, 2, 3, 4, 5, 6, 7], held_out)
    assert [len(words) for words in stated] == [0, 1, 0, 0, 0, 0, 1, 0]


def test_the_sentence_has_the_numbers_on_both_scales():
    stated, _ = play(HackingAlarm(window=2), UP, DOWN, scales={"x100": 100.0})
    (sentence,) = stated[2]
    assert "from update 0 to 20 while held-out rewards got worse: HPSv2.1 on hpdv2 by 2 " in sentence
    assert ", x100 by 200 to" in sentence
    stated = r"the training reward Brightness got better by (\S+) \(± (\S+)\) from"
    rise, error = map(float, re.match(stated, sentence).groups())
    # a line through two straight stretches of ten steps each from 0 to 1.9
    assert abs(rise - 1.9) < 4 * error


def test_where_lower_is_better_a_rise_is_the_fall():
    up = [[x] for x in UP]
    assert sum(map(len, play(HackingAlarm(window=2), UP, up, higher_is_better=False)[0])) == 1
    assert sum(map(len, play(HackingAlarm(window=2), UP, DOWN, higher_is_better=False)[0])) == 0


def test_a_training_reward_of_which_lower_is_better_gets_better_by_falling():
    class Cost(Brightness):
        higher_is_better = False
        label, scales = "Cost2.1", {"x100": 100.0}

    stated, _ = play(HackingAlarm(window=2), UP[::-1], DOWN, trained(Cost()))
    (sentence,) = stated[2]
    assert re.match(r"the training reward Cost2.1 got better by \S+ \(± \S+\), x100 by \S+ from update 0", sentence)
    assert sum(map(len, play(HackingAlarm(window=2), UP, DOWN, trained(Cost()))[0])) == 0


def test_scores_that_are_not_finite_do_not_silence_it():
    bad = results(0, 0)
    bad.sets["hpdv2"][0].scores[7] = float("nan")
    alarm, trainer, module = HackingAlarm(window=1), Trainer(logger=False, accelerator="cpu"), trained()
    alarm.on_evaluation(trainer, module, results(0, 5))
    for value in (0.0, 1.0, float("nan"), 2.1, float("inf"), 3.0):
        trainer.callback_metrics["reward/mean"] = torch.tensor(value)
        alarm.on_train_batch_end(trainer, module, None, None, 0)
    with pytest.warns(UserWarning, match=r"HPSv2.1 on hpdv2 by 5 \(± \S+\) to -?\d"):
        alarm.on_evaluation(trainer, module, bad)


def test_scores_none_of_which_is_finite_ring_nothing():
    stated, _ = play(HackingAlarm(window=2), UP, [[float("nan")]] * 6)
    assert sum(map(len, stated)) == 0


def test_diversity_is_no_reward():
    assert sum(map(len, play(HackingAlarm(window=2), UP, DOWN, label="diversity", per_sample=False)[0])) == 0


def test_a_resumed_alarm_goes_on():
    whole, part, resumed = HackingAlarm(window=2), HackingAlarm(window=2), HackingAlarm(window=2)
    play(whole, UP, DOWN)
    play(part, UP[:2], DOWN[:2])
    resumed.load_state_dict(part.state_dict())
    assert resumed._looks[0].update == 0
    with pytest.warns(UserWarning, match="gaming"):
        resumed.on_evaluation(Trainer(logger=False, accelerator="cpu"), trained(), results(20, 3))
    assert resumed.ringing
    assert whole.ringing


def test_trend_and_mean_are_the_textbook_s():
    rise = trend([1.0, 3.0, 2.0, 4.0])
    # slope 0.8 a step over 3 steps; residuals ±0.3, ±0.9 of it: s² = 1.8 / 2, Σx² = 5 steps²
    assert rise.size == pytest.approx(2.4)
    assert rise.error == pytest.approx(3 * (0.9 / 5) ** 0.5)
    assert mean(torch.tensor([1.0, 3.0])) == pytest.approx((2.0, 1.0))


# ---------------------------------------------------------------- in a run


class Dark(Reward):
    """The opposite of what is trained on."""

    def forward(self, samples, prompts):
        return 1 - samples.flatten(1).mean(1)


def hack(tmp_path, steps, also=(), **settings):
    alarm = HackingAlarm(window=1, stop=True)
    callbacks = [alarm, *also, Evaluation(metrics=[Dark()], every=5), Checkpointing(5, str(tmp_path))]
    data = Prompts(list(WORDS), val=list(WORDS), batch_size=16)
    kept = {"enable_checkpointing": True, "plugins": [SafeCheckpointIO()], "default_root_dir": tmp_path}
    return alarm, run(align(reward=Brightness(), lr=0.02), data, steps, callbacks=callbacks, **kept, **settings)


def test_stops_a_run_that_games_its_reward(tmp_path):
    with pytest.warns(UserWarning, match="Dark on Prompts by .* so training stops"):
        _, trainer = hack(tmp_path, 50)
    assert trainer.global_step in (5, 10)
    looks = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["HackingAlarm"]["looks"]
    assert [look["update"] for look in looks] == [trainer.global_step - 5, trainer.global_step]


class Leave(Callback):
    """Leaves behind what each rank's alarm knows."""

    def __init__(self, folder):
        self.folder = folder

    def setup(self, trainer, pl_module, stage):
        torch.set_num_threads(1)  # a forked process has none of its parent's threads

    def on_train_end(self, trainer, pl_module):
        (alarm,) = [callback for callback in trainer.callbacks if isinstance(callback, HackingAlarm)]
        left = {**alarm.state_dict(), "steps": trainer.global_step}
        torch.save(left, self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_two_processes_stop_together(tmp_path):
    hack(tmp_path, 50, also=[Leave(tmp_path)], strategy="ddp_fork", devices=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert one["steps"] == other["steps"] < 50
    assert one["ringing"]
    assert other["ringing"]
    for a, b in zip(one["looks"], other["looks"], strict=True):
        assert a["training"] == b["training"]
        assert all(torch.equal(scores, b["held_out"][name]) for name, scores in a["held_out"].items())


def test_needs_an_evaluation():
    for others in ([], [Evaluation(every=0)]):
        with pytest.raises(ValueError, match=r"no Evaluation measures them; add one with every=50"):
            run(align(), Prompts(list(WORDS), val=["one"]), callbacks=[HackingAlarm(), *others])
