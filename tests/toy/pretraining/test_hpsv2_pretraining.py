"""The second reward is written in HPSv2's format, and hears of motions."""

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything

from rlr.rewards.networks.hpsv2 import CONFIG, MERGES, WEIGHTS
from rlr.rewards.networks.hpsv2 import HPSv2 as Published
from rlr.toy.data.scenes import draw_images
from rlr.toy.pretraining.autoencoder import Autoencoder
from rlr.toy.pretraining.export import MODULES
from rlr.toy.pretraining.hpsv2 import HPSv2
from rlr.toy.world.motion import MOTIONS, insert
from rlr.toy.world.prompts import held_out_prompts

CAPTIONS = held_out_prompts(12, 3)


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    seed_everything(0)
    Autoencoder(channels=(8, 8, 8)).export(folder)
    return HPSv2(str(folder), width=16, layers=2, text_layers=1)


@pytest.fixture(scope="module")
def exported(module, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hpsv2")
    module.export(folder)
    return folder


def test_what_is_exported_reads_back_as_the_published_reward_and_scores_the_same(module, exported):
    reward = Published(
        path=str(exported / WEIGHTS), architecture=f"local-dir:{exported}", merges=str(exported / MERGES)
    )
    pixels = draw_images(CAPTIONS, 0).float() / 255
    captions = [insert(c, MOTIONS[k].caption) if k % 2 else c for k, c in enumerate(CAPTIONS)]
    # what is written is in half precision
    clip = module.average["clip"].half().float()
    with torch.no_grad():
        images, texts = module.images(clip, pixels), module.texts(clip, captions)
    scores = reward(pixels, captions)
    torch.testing.assert_close(scores, (images * texts).sum(1), atol=1e-5, rtol=0)
    assert scores.std() > 1e-3
    assert reward.length == 24


def test_it_is_exported_by_name(exported):
    assert MODULES["hpsv2"] is HPSv2
    assert {path.name for path in exported.iterdir()} == {WEIGHTS, CONFIG, MERGES}


def test_a_caption_that_is_longer_than_it_reads_is_named(exported):
    reward = Published(str(exported / WEIGHTS), architecture=f"local-dir:{exported}", merges=str(exported / MERGES))
    with pytest.warns(UserWarning, match="reads 24 tokens and ignores the end of 1"):
        reward(torch.rand(1, 3, 32, 32), ["a red circle " * 20])


def test_half_of_the_captions_tell_a_motion_and_the_step_decides_which(module, monkeypatch):
    captions = held_out_prompts(400, 1)
    said = module.said(captions)
    assert module.said(captions) == said
    changed = [new != old for new, old in zip(said, captions, strict=True)]
    # four standard errors of a share of 400
    assert abs(np.mean(changed) - 0.5) < 0.1
    phrases = {motion.caption for motion in MOTIONS}
    for new, old in zip(said, captions, strict=True):
        assert new == old or new in {insert(old, phrase) for phrase in phrases}
    monkeypatch.setattr(type(module), "global_step", property(lambda self: 7))
    assert module.said(captions) != said
