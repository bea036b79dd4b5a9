"""What is a default because somebody published it stays so."""

import inspect
from pathlib import Path

import pytest
import yaml

from rlr.cli.config_inheritance import with_bases
from rlr.estimators import (
    AWM,
    DDPO,
    GRPO,
    AlignProp,
    DecayRamp,
    DiffusionNFT,
    DirectAlign,
    DRaFTLV,
    DRTune,
    FirstOrder,
    GaussianSteps,
    HybridPolicyGradient,
    ImportanceRatio,
    LeapAlign,
    NormalizedError,
    OfficialRLR,
    PowerVelocityError,
    PromptStatistics,
    ReFL,
    RoundStatistics,
    RoundStd,
)
from rlr.modules import DOODL
from rlr.modules.optimization import Optimization
from rlr.samplers import CPS, DDIM, DanceSDE, RandomWindow, SlidingWindow

CONFIGS = Path(__file__).parents[1] / "configs"

DEFAULTS = {
    DDIM: {"steps": 50, "eta": 1.0},
    Optimization: {"betas": (0.9, 0.999), "weight_decay": 1e-4},
    DDPO: {"num_minibatches": 4, "epochs": 1, "advantage_clip": 5.0, "timestep_fraction": 1.0, "mean_over_steps": True},
    ImportanceRatio: {"clip": 1e-4, "limit": None},
    PromptStatistics: {"buffer": 16, "least": 16, "epsilon": 1e-6},
    RoundStatistics: {"epsilon": 1e-8},
    AlignProp: {"low": 0, "high": None},
    GaussianSteps: {"mean": 8.0, "std": 5.0},
    FirstOrder: {"steps": 1},
    DirectAlign: {"draws": 1, "shift": 3.0, "inversion": 0.0},
    DRaFTLV: {"noises": 2},
    GRPO: {"num_minibatches": 2, "epochs": 1, "advantage_clip": 5.0, "skip_last": 1, "kl": 0.04},
    HybridPolicyGradient: {"num_minibatches": 1, "epochs": 1, "advantage_clip": 5.0, "kl": 0.0, "weight": 1e-4},
    RandomWindow: {"length": 3},
    SlidingWindow: {"length": 4, "rounds": 25},
    CPS: {"noise_level": 0.8},
    DanceSDE: {"noise_level": 0.3},
    ReFL: {"window": 10},
    DRTune: {"trained": 2, "window": 11},
    LeapAlign: {"discount": 0.3, "floor": 0.1},
    AWM: {"advantage_clip": 5.0, "kl": 0.003, "old_weight": 1.0, "num_minibatches": 2, "epochs": 1},
    PowerVelocityError: {"power": 0.25},
    DiffusionNFT: {"beta": 1.0, "advantage_clip": 5.0, "kl": 1e-4, "num_minibatches": 1, "epochs": 1},
    DecayRamp: {"slope": 0.001, "limit": 0.5, "start": 0},
    OfficialRLR: {"draws": 1, "first_weight": 0.05, "half_weight": 1.0},
    DOODL: {
        "steps": 50,
        "mixing": 0.93,
        "iterations": 50,
        "scale": 1.0,
        "clip": 1e-3,
        "momentum": 0.9,
        "perturbation": 1e-4,
    },
}


@pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)
def test_a_published_default_is_the_default(kind) -> None:  # type: ignore[no-untyped-def]
    found = {name: one.default for name, one in inspect.signature(kind.__init__).parameters.items()}
    assert {name: found[name] for name in DEFAULTS[kind]} == DEFAULTS[kind]


def test_so_are_the_objects_that_stand_for_none() -> None:
    ddpo, official = DDPO(), OfficialRLR()
    assert (type(ddpo.surrogate), type(ddpo.statistics)) == (ImportanceRatio, PromptStatistics)
    assert vars(ddpo.surrogate) == {"clip": 1e-4, "limit": None}
    assert (type(official.surrogate), type(official.statistics)) == (ImportanceRatio, RoundStatistics)
    assert vars(official.surrogate) == {"clip": 1e-4, "limit": 20.0}


def test_so_are_those_of_the_forward_process() -> None:
    for estimator, error, levels, limit in (
        (AWM(), PowerVelocityError, 6, 0.3),
        (DiffusionNFT(), NormalizedError, None, 0.5),
    ):
        assert type(estimator.error) is error
        assert estimator.process.levels == levels
        assert vars(estimator.old.decay) == {"slope": 0.001, "limit": limit, "start": 0}
        assert (type(estimator.statistics.divisor), estimator.statistics.leave_one_out) == (RoundStd, False)
        assert estimator.statistics.divisor.epsilon == 1e-4
    assert vars(AWM().surrogate) == {"clip": 1.0, "limit": None}


STATISTICS = "estimator.statistics.buffer", "estimator.statistics.least"
CONFIGURED = {
    "image/sd14_ddpo_aes": {
        "optimization.lr": 3e-4,
        "optimization.clip_norm": 1.0,
        "model.scale": 5.0,
        **dict(zip(STATISTICS, (32, 16), strict=True)),
    },
    "image/sd14_alignprop_aes": {
        "optimization.lr": 1e-3,
        "optimization.weight_decay": 0.1,
        "optimization.clip_norm": 5.0,
        "estimator.weight": 0.01,
    },
    "image/sd14_alignprop_gaussian_aes": {
        "optimization.lr": 1e-3,
        "optimization.clip_norm": 1.0,
        "model.scale": 5.0,
        "estimator.weight": 0.01,
    },
    "image/sd14_rlr_official_aes": {
        "optimization.lr": 1e-3,
        "optimization.accumulate": 3,
        "optimization.clip_norm": None,
        "sampler.eta": 0.05,
        "model.scale": 5.0,
        "estimator.draws": 2,
        "estimator.first_weight": 0.05,
        "estimator.half_weight": 0.001,
    },
    "image/tiny_leapalign": {"estimator.discount": 0.1, "estimator.floor": 0.1},
    "image/doodl_sd14_aes": {"model.scale": 7.5},
    "video/vc2_vader_aes": {
        "optimization.lr": 2e-4,
        "optimization.weight_decay": 0.01,
        "optimization.clip_norm": 1.0,
        "optimization.accumulate": 8,
        "estimator.steps": 1,
    },
}


def looked_up(folder: Path, value, keys: list[str]):  # type: ignore[no-untyped-def]
    """Returns an argument of a config, by names one within the other; None where it is not given."""
    for key in keys:
        if isinstance(value, str) and value.endswith(".yaml"):
            text = (folder / value).read_text(encoding="utf-8")
            value = with_bases(yaml.safe_load(text), folder)
        value = value.get("init_args", value).get(key)
    return value


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_published_setting_is_the_config_s(name: str) -> None:
    path = CONFIGS / f"{name}.yaml"
    config = with_bases(yaml.safe_load(path.read_text(encoding="utf-8")), path.parent)["model"]
    expected = CONFIGURED[name]
    assert {key: looked_up(path.parent, config, key.split(".")) for key in expected} == expected
