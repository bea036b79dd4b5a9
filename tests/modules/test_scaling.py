"""A reward that learns from scores does so once an update, from what was recorded, and stands still in between."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from rlr.estimators import (
    DDPO,
    RLR,
    AlignProp,
    DRaFTLV,
    FirstOrder,
    HalfOrder,
    HalfOrderRLR,
    LookAhead,
    OfficialRLR,
    ReFL,
    ZerothOrder,
)
from rlr.estimators.surrogates import ScoreFunction
from rlr.rewards import Brightness, Combine, RunningZScore
from rlr.rewards.base import Reward
from tests.modules.test_ddp import two
from tests.modules.toy import WORDS, AffineModel, Level, align, prompts, run, weights

STANDARD = {"level": 1.0, "bright": 0.5}


def combine(scaling=None):
    return Combine({"level": Level(), "bright": Brightness()}, STANDARD, scaling or RunningZScore())


def build(scaling=None, **changes):
    return align(reward=combine(scaling), **changes)


class Spied(RunningZScore):
    """Notes what it scales with, update by update."""

    updates: list[list[tuple[float, float]]]

    def forward(self, scores):
        self.updates[-1].append((self.mean.item(), self.variance.item()))
        return super().forward(scores)

    def settle(self, provisional=False):
        super().settle(provisional)
        if provisional:
            self.updates[-1].clear()  # the scores that it has been introduced with
        else:
            self.updates.append([])


class Drifting(Spied):
    """The fault: it learns from whatever it scales."""

    def forward(self, scores):
        self.observe(scores.detach())
        RunningZScore.settle(self)
        return super().forward(scores)


def scales(kind, estimator, steps=3, **changes):
    """Returns the different means and variances that the scores of each update were scaled with."""
    kind.updates = [[]]
    reward = Combine({"level": Level()}, {"level": 1.0}, kind())
    run(align(reward=reward, estimator=estimator, **changes), prompts(), steps)
    return [set(each) for each in kind.updates[:steps]]


VARYING = {
    "rlr": lambda: RLR(length=2, zeroth=ZerothOrder(directions=2)),
    "one point": lambda: ZerothOrder(antithetic=False),
    "look ahead": lambda: HalfOrder(length=2, control=LookAhead()),
    "several noises": DRaFTLV,
}


@pytest.mark.parametrize("name", VARYING)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_all_scores_of_an_update_have_one_scale(name, accumulate):
    found = scales(Spied, VARYING[name](), accumulate=accumulate)
    assert [len(each) for each in found] == [1, 1, 1]
    assert len(set.union(*found)) > 1


def test_the_law_can_fail():
    assert max(len(each) for each in scales(Drifting, VARYING["rlr"]())) > 1


def test_the_first_update_has_the_scale_of_its_own_scores():
    module = build()
    seen = []
    module.objective.watch = lambda rewards: seen.append((rewards, dict(module.objective.parts)))
    run(module, prompts(), 1)
    ((rewards, parts),) = seen
    expected = sum(w * (parts[n] - parts[n].mean()) / parts[n].std(correction=0) for n, w in STANDARD.items())
    torch.testing.assert_close(rewards, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_statistics_are_those_of_the_recorded_samples(accumulate):
    module, recorded = build(accumulate=accumulate, estimator=RLR(length=2)), []
    roll_out = module._roll_out

    def noting(*args):
        trajectory = roll_out(*args)
        recorded.append(Brightness()(module.chain.model.decode(trajectory.states[0]), trajectory.prompts))
        return trajectory

    module._roll_out = noting
    run(module, prompts(), 3)
    memory, scores = module.reward.memory(), torch.cat(recorded).double()
    assert len(scores) == memory["scalings.1.count"] == 12 * accumulate
    assert memory["scalings.1.mean"].item() == pytest.approx(scores.mean().item())
    assert memory["scalings.1.variance"].item() == pytest.approx(scores.var(correction=0).item(), rel=1e-4)


ESTIMATORS = {
    **VARYING,
    "first order": FirstOrder,
    "half order": HalfOrder,
    "half-order rlr": lambda: HalfOrderRLR(length=2),
    "no first order": lambda: RLR(length=2, steps=0),
    "alignprop": AlignProp,
    "refl": lambda: ReFL(window=2),
    "ddpo": lambda: DDPO(parts=1, surrogate=ScoreFunction()),
    "official": lambda: OfficialRLR(draws=2),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_asks_first_for_the_scores_it_reports(name):
    module, calls = align(), []
    estimator, texts = ESTIMATORS[name](), list(WORDS[:4])
    noises = module.chain.draw(range(4))
    trajectory = estimator.rollout(module.chain, texts, noises, 0)

    def objective(x):
        scores = Level()(module.chain.model.decode(x), texts)
        calls.append(scores.detach())
        return scores

    reported = [term.rewards for term in estimator.losses(module.chain, trajectory, objective)]
    assert reported
    assert all(torch.equal(rewards, calls[0]) for rewards in reported)


@pytest.mark.parametrize("inference_mode", [False, True])
def test_looking_changes_neither_weights_nor_what_is_learnt(inference_mode):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    module, data = build(), prompts(val=list(WORDS), test=list(WORDS), predict=list(WORDS))
    run(module, data, 2)
    before, memory = weights(module), module.reward.memory()
    trainer = Trainer(inference_mode=inference_mode, enable_model_summary=False, **quiet)
    for look in (trainer.validate, trainer.test, partial(trainer.predict, return_predictions=False)):
        look(module, datamodule=data)
    assert torch.equal(weights(module), before)
    assert memory["scalings.0.count"] == 8
    assert all(torch.equal(value, memory[name]) for name, value in module.reward.memory().items())


def test_validation_within_training_changes_nothing():
    data = prompts(val=list(WORDS))
    one, other = build(), build()
    run(one, data, 4, limit_val_batches=0)
    run(other, data, 4, val_check_interval=1, check_val_every_n_epoch=None, inference_mode=False)
    assert torch.equal(weights(one), weights(other))
    assert all(torch.equal(value, other.reward.memory()[name]) for name, value in one.reward.memory().items())


# ---------------------------------------------------------------- what is logged


def test_parts_of_the_recorded_samples_are_logged():
    module, recorded = build(estimator=RLR(length=2)), []
    roll_out = module._roll_out
    module._roll_out = lambda *args: recorded.append(roll_out(*args)) or recorded[-1]
    logged = run(module, prompts(), 1).logged_metrics
    (trajectory,) = recorded
    for name, part in (("level", Level()), ("bright", Brightness())):
        expected = part(module.chain.model.decode(trajectory.states[0]), trajectory.prompts).mean().item()
        assert logged[f"reward/{name}"] == pytest.approx(expected)
        assert logged[f"reward/{name}/{part.label}"] == pytest.approx(expected)


class Cost(Reward):
    """A reward of which lower is better, with a version in its name and a published scale."""

    higher_is_better = False
    label, scales = "Cost v2", {"x100": 100.0}

    def forward(self, samples, prompts):
        return samples.flatten(1).mean(1)


def test_what_is_shown_is_the_score_itself_by_name_and_on_its_published_scale():
    module = align(reward=Cost(), lr=0.02)
    trainer = run(module, prompts(val=list(WORDS)), 8, val_check_interval=8, check_val_every_n_epoch=None)
    logged, shown = trainer.callback_metrics, trainer.progress_bar_metrics
    for whole, name in (("reward/mean", "reward/Cost_v2"), ("val/reward", "val/Cost_v2")):
        assert 0 < logged[whole] < 1
        assert logged[name] == logged[whole]
        assert logged[f"{name}_x100"] == pytest.approx(100 * logged[whole].item())
    assert logged["reward/mean"] == pytest.approx(logged["val/reward"].item(), abs=0.2)
    assert shown["Cost v2"] == pytest.approx(module.progress.running, abs=1e-3)
    assert shown["Cost v2 x100"] == pytest.approx(100 * module.progress.running, abs=0.1)
    assert shown["val/Cost_v2_x100"] == pytest.approx(logged["val/Cost_v2_x100"].item(), abs=0.1)


# ---------------------------------------------------------------- two processes


@pytest.mark.filterwarnings("ignore:.*fork.*")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_equal_one_and_five_prompts_end(tmp_path, accumulate):
    """Ranks have three and two prompts to validate, and no collective of the reward may wait for the other."""
    settings = {"precision": "64-true", "val_check_interval": 1, "check_val_every_n_epoch": None}

    def made():
        model = AffineModel(dtype="float64", frozen=False)
        return build(model=model, estimator=RLR(length=2, zeroth=ZerothOrder(scale=1e-3)), accumulate=accumulate)

    one = made()
    trainer = run(one, prompts(4, val=list(WORDS[:5])), 3, **settings)
    left = two(made(), tmp_path, 2, 3, data={"val": list(WORDS[:5])}, **settings)
    for rank in left:
        torch.testing.assert_close(rank["weights"], weights(one), atol=1e-6, rtol=0)
        assert rank["reward"] == pytest.approx(trainer.callback_metrics["reward/mean"].item(), abs=1e-5)
        assert rank["logged"]["reward/level"] == pytest.approx(
            trainer.callback_metrics["reward/level"].item(), rel=1e-5
        )
        for name, value in one.reward.memory().items():
            torch.testing.assert_close(rank["memory"][name], value, rtol=1e-5, atol=1e-8)
