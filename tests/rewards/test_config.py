"""Rewards from YAML, as configs write them."""

import pytest
from jsonargparse import ArgumentParser

from rlr.rewards import Reward
from rlr.rewards.combine import Combine, RunningZScore
from rlr.rewards.frames import EvenlySpaced, FrameReward
from rlr.rewards.networks.preprocessing import Preprocessing, Squash
from tests.rewards.authors import hpsv2_files
from tests.rewards.folder import FOLDER

PICK = {"class_path": "PickScore", "init_args": {"path": str(FOLDER)}}
BRIGHT = "Brightness"


def instantiate(config):
    parser = ArgumentParser()
    parser.add_argument("--reward", type=Reward)
    return parser.instantiate_classes(parser.parse_object({"reward": config})).reward


def test_hpsv2_with_version_and_preprocessing_by_name():
    path, architecture = hpsv2_files()
    settings = {"path": str(path), "architecture": architecture, "version": "v2_0", "preprocessing": "official"}
    reward = instantiate({"class_path": "HPSv2", "init_args": settings})
    assert reward.label == "HPSv2.0"
    assert reward.fit == reward.fits[Preprocessing.official]


def test_a_fit_of_ones_own():
    fit = {"class_path": "Squash", "init_args": {"mode": "bicubic"}}
    reward = instantiate({**PICK, "init_args": {**PICK["init_args"], "preprocessing": fit}})
    assert reward.fit == Squash("bicubic")


def test_an_unknown_preprocessing_is_refused(capsys):
    with pytest.raises(SystemExit):
        instantiate({**PICK, "init_args": {**PICK["init_args"], "preprocessing": "fast"}})
    assert "official" in capsys.readouterr().err


def test_a_combination_on_frames():
    parts = {"rewards": {"pick": PICK, "bright": BRIGHT}, "weights": {"pick": 1.0, "bright": 2.0}}
    scaling = {"class_path": "RunningZScore"}
    combined = {"class_path": "Combine", "init_args": {**parts, "scaling": scaling}}
    choice = {"class_path": "EvenlySpaced", "init_args": {"count": 2}}
    reward = instantiate({"class_path": "FrameReward", "init_args": {"reward": combined, "choice": choice}})
    assert isinstance(reward, FrameReward)
    assert reward.choice == EvenlySpaced(2)
    assert isinstance(reward.reward, Combine)
    assert isinstance(reward.reward.scalings[1], RunningZScore)
    assert reward.reward.weights == [1, 2]
