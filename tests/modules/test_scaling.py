"""Running statistics of a reward change once a round, by the recorded samples, and never in between."""

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
    RoundStatistics,
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
    """Notes what it scales with, round by round."""

    updates: list[list[tuple[float, float]]]

    def forward(self, scores):
        self.updates[-1].append((self.mean.item(), self.variance.item()))
        return super().forward(scores)

    def update_statistics(self, scores, provisional=False):
        super().update_statistics(scores, provisional)
        if provisional:
            self.updates[-1].clear()  # the scores of the first statistics
        else:
            self.updates.append([])


class Drifting(Spied):
    """The fault: it learns from whatever it scales."""

    def forward(self, scores):
        RunningZScore.update_statistics(self, scores.detach())
        return super().forward(scores)


def scales(kind, estimator, rounds=3, **changes):
    """Returns the different means and variances that the scores of each round were scaled with."""
    kind.updates = [[]]
    reward = Combine({"level": Level()}, {"level": 1.0}, kind())
    module = align(reward=reward, estimator=estimator, **changes)
    run(module, prompts(), rounds * estimator.updates_per_round)
    assert kind.updates[rounds:] == [[]]
    return [set(each) for each in kind.updates[:rounds]]


VARYING = {
    "rlr": lambda: RLR(length=2, zeroth=ZerothOrder(directions=2)),
    "one point": lambda: ZerothOrder(antithetic=False),
    "look ahead": lambda: HalfOrder(length=2, control=LookAhead()),
    "several noises": DRaFTLV,
    "four updates": lambda: DDPO(2, epochs=2, statistics=RoundStatistics()),
}


@pytest.mark.parametrize("name", VARYING)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_all_scores_of_a_round_have_one_scale(name, accumulate):
    found = scales(Spied, VARYING[name](), accumulate=accumulate)
    assert [len(each) for each in found] == [1, 1, 1]
    assert len(set.union(*found)) > 1


def test_the_law_can_fail():
    assert max(len(each) for each in scales(Drifting, VARYING["rlr"]())) > 1


def noted(module):
    """Returns a list of the rollouts that the module samples from now on."""
    rollouts, sample = [], module._sample
    module._sample = lambda *args: rollouts.append(sample(*args)) or rollouts[-1]
    return rollouts


def test_the_first_round_has_the_scale_of_its_own_scores():
    module = build()
    rollouts = noted(module)
    run(module, prompts(), 1)
    rewards, parts = rollouts[0].scores.values, rollouts[0].scores.parts
    expected = sum(w * (parts[n] - parts[n].mean()) / parts[n].std(correction=0) for n, w in STANDARD.items())
    torch.testing.assert_close(rewards, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_statistics_are_those_of_the_recorded_samples(accumulate):
    module = build(accumulate=accumulate, estimator=RLR(length=2))
    rollouts = noted(module)
    run(module, prompts(), 3)
    statistics, scores = module.reward.statistics(), torch.cat([rescored(module, r) for r in rollouts]).double()
    assert len(scores) == statistics["scalings.1.count"] == 12 * accumulate
    assert statistics["scalings.1.mean"].item() == pytest.approx(scores.mean().item())
    assert statistics["scalings.1.variance"].item() == pytest.approx(scores.var(correction=0).item(), rel=1e-4)


def rescored(module, rollout, reward=None):
    """Returns the scores of the recorded samples by another route: decoded and scored again."""
    return (reward or Brightness())(module.chain.model.decode(rollout.trajectory.states[0]), rollout.prompts)


ESTIMATORS = {
    **VARYING,
    "first order": FirstOrder,
    "half order": HalfOrder,
    "half-order rlr": lambda: HalfOrderRLR(length=2),
    "no first order": lambda: RLR(length=2, steps=0),
    "alignprop": AlignProp,
    "refl": lambda: ReFL(window=2),
    "ddpo": lambda: DDPO(1, surrogate=ScoreFunction()),
    "official": lambda: OfficialRLR(draws=2),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_scores_of_a_rollout_are_those_of_its_recorded_samples(name):
    """Not those of perturbed or renoised ones, and each is computed once. ReFL and OfficialRLR report their predictions."""
    module, estimator = align(), ESTIMATORS[name]()
    objective = module.objective.of_frames()
    rollout = estimator.rollout(module.chain, list(WORDS[:4]), module.chain.draw(range(4)), objective)
    assert list(estimator.terms(rollout))
    scores, calls = rollout.scores, module.objective.calls
    assert scores is rollout.scores
    assert module.objective.calls == calls
    found, expected = scores.values, rescored(module, rollout, Level())
    if name in ("refl", "official"):
        assert found.shape == expected.shape
    else:
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert not found.requires_grad


@pytest.mark.parametrize("inference_mode", [False, True])
def test_evaluation_changes_neither_weights_nor_statistics(inference_mode):
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    module, data = build(), prompts(val=list(WORDS), test=list(WORDS), predict=list(WORDS))
    run(module, data, 2)
    before, statistics = weights(module), module.reward.statistics()
    trainer = Trainer(inference_mode=inference_mode, enable_model_summary=False, **silent)
    for look in (trainer.validate, trainer.test, partial(trainer.predict, return_predictions=False)):
        look(module, datamodule=data)
    assert torch.equal(weights(module), before)
    assert statistics["scalings.0.count"] == 8
    assert all(torch.equal(value, statistics[name]) for name, value in module.reward.statistics().items())


def test_validation_within_training_changes_nothing():
    data = prompts(val=list(WORDS))
    one, other = build(), build()
    run(one, data, 4, limit_val_batches=0)
    run(other, data, 4, val_check_interval=1, check_val_every_n_epoch=None, inference_mode=False)
    assert torch.equal(weights(one), weights(other))
    assert all(torch.equal(value, other.reward.statistics()[name]) for name, value in one.reward.statistics().items())


# ---------------------------------------------------------------- what is logged


def test_parts_of_the_recorded_samples_are_logged():
    module = build(estimator=RLR(length=2))
    rollouts = noted(module)
    logged = run(module, prompts(), 1).logged_metrics
    for name, part in (("level", Level()), ("bright", Brightness())):
        expected = rescored(module, rollouts[0], part).mean().item()
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
        torch.testing.assert_close(rank["weights"], weights(one), atol=1e-7, rtol=0)
        assert rank["reward"] == pytest.approx(trainer.callback_metrics["reward/mean"].item(), abs=1e-5)
        assert rank["logged"]["reward/level"] == pytest.approx(
            trainer.callback_metrics["reward/level"].item(), rel=1e-5
        )
        for name, value in one.reward.statistics().items():
            torch.testing.assert_close(rank["statistics"][name], value, rtol=1e-5, atol=1e-8)
