"""Rewards from YAML, as configs write them."""

from dataclasses import asdict

import pytest
import torch
from jsonargparse import ArgumentParser

from rlr.rewards import OCR, Brightness, GenEval, PartialCredit, PickScore, Reward, ViCLIP
from rlr.rewards.combine import Combine, RunningZScore
from rlr.rewards.frames import EvenlySpaced, FrameReward
from rlr.rewards.networks.preprocessing import Preprocessing, Squash
from tests.rewards.authors import hpsv2_files
from tests.rewards.folder import FOLDER
from tests.rewards.geneval.scenes import LINES, write
from tests.rewards.random_viclip import SMALL, write_random_viclip

PICK = {"class_path": PickScore.__name__, "init_args": {"path": str(FOLDER)}}
BRIGHT = Brightness.__name__


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


def test_the_mix_of_a_config(tmp_path):
    """Image reward on a frame, ViCLIP on the video."""
    video = {
        "class_path": "ViCLIP",
        "init_args": {"path": str(write_random_viclip(tmp_path)), "sizes": asdict(SMALL), "preprocessing": "official"},
    }
    parts = {"image": {"class_path": "FrameReward", "init_args": {"reward": PICK}}, "video": video}
    combined = {"class_path": "Combine", "init_args": {"rewards": parts, "weights": {"image": 1.0, "video": 2.0}}}
    reward = instantiate(combined)
    assert reward.supports_video
    assert reward.differentiable
    assert isinstance(reward.rewards[1], ViCLIP)
    assert reward.rewards[1].fit == Squash("bilinear", antialias=False)
    assert reward(torch.rand(2, 8, 3, 32, 32), ["a cat", "a dog"]).isfinite().all()


def read_nothing(images):
    return [""] * len(images)


@pytest.mark.parametrize(
    "engine",
    [
        "tests.rewards.test_config.read_nothing",
        {"class_path": "rlr.rewards.RapidText", "init_args": {"threads": 1}},
    ],
)
def test_an_engine_is_a_function_or_an_object(engine):
    reward = instantiate({"class_path": OCR.__name__, "init_args": {"engine": engine}})
    assert isinstance(reward, OCR)
    assert reward(torch.ones(1, 3, 64, 64), ['"open"']).item() == 0


def find_nothing(images):
    return [[] for _ in images]


def no_colors(image, objects, name):
    return []


@pytest.mark.parametrize("rule", [PartialCredit.__name__, {"class_path": "Exact"}])
def test_detector_colors_and_rule(tmp_path, rule):
    parts = {name: f"tests.rewards.test_config.{name}" for name in ("find_nothing", "no_colors")}
    settings = {
        "metadata": write(tmp_path),
        "detector": parts["find_nothing"],
        "colors": parts["no_colors"],
        "rule": rule,
    }
    reward = instantiate({"class_path": GenEval.__name__, "init_args": settings})
    assert isinstance(reward, GenEval)
    assert type(reward.rule).__name__ == (rule if isinstance(rule, str) else rule["class_path"])
    assert reward(torch.ones(1, 3, 8, 8), [LINES[0]["prompt"]]).item() == 0
