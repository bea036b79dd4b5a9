"""The built-in world's two preference models: what they prefer, and that each is a file of its authors' format."""

from importlib.resources import files

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rlr.rewards.networks.preprocessing import normalize_pixels
from rlr.toy.data.scenes import draw_images
from rlr.toy.rewards import TinyHPSv2, TinyPickScore
from rlr.toy.world.caption import altered, parse
from rlr.toy.world.motion import MOTIONS, insert
from rlr.toy.world.prompts import held_out_prompts

KINDS = (TinyPickScore, TinyHPSv2)
CAPTIONS = held_out_prompts(120, seed=5)


@pytest.fixture(scope="module")
def pictures():
    return draw_images(CAPTIONS, seed=5).float() / 255


def others(claim):
    """Captions with one claim altered, and the numbers of the captions that make the claim."""
    every = [altered(parse(caption), np.random.default_rng(k)) for k, caption in enumerate(CAPTIONS)]
    index = [k for k, other in enumerate(every) if claim in other]
    return index, [every[k][claim].caption for k in index]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("claim", ["count", "color", "shape", "place", "background"])
def test_a_picture_is_preferred_with_its_own_caption_to_one_with_a_claim_altered(kind, claim, pictures):
    reward = kind()
    index, captions = others(claim)
    own, other = (reward(pictures[index], texts) for texts in ([CAPTIONS[k] for k in index], captions))
    # chance is a half; with 40 images and more, three quarters is three standard errors away
    assert (own > other).float().mean() > 0.75


def test_the_two_models_err_apart(pictures):
    index, captions = others("shape")
    mistakes = []
    for reward in (TinyPickScore(), TinyHPSv2()):
        own, other = (reward(pictures[index], texts) for texts in ([CAPTIONS[k] for k in index], captions))
        mistakes.append(own <= other)
    assert mistakes[0].any()
    assert not torch.equal(*mistakes)


def test_a_motion_in_the_caption_changes_the_second_models_score_little(pictures):
    reward, some, captions = TinyHPSv2(), pictures[::3], CAPTIONS[::3]
    spread = reward(some, captions).std()
    scores = torch.stack([reward(some, [insert(c, motion.caption) for c in captions]) for motion in MOTIONS])
    assert scores.std(0).mean() < spread / 2


def test_open_clip_opens_the_folder_and_agrees(pictures):
    from open_clip import SimpleTokenizer, create_model

    folder = files("rlr.toy") / "assets" / "tiny_hpsv2"
    model = create_model(f"local-dir:{folder}", load_weights=True).eval()
    tokens = SimpleTokenizer(str(folder / "merges.txt.gz"), context_length=model.context_length)(CAPTIONS)
    with torch.no_grad():
        images = F.normalize(model.encode_image(normalize_pixels(pictures)), dim=-1)
        theirs = (images * F.normalize(model.encode_text(tokens), dim=-1)).sum(1)
    torch.testing.assert_close(TinyHPSv2()(pictures, CAPTIONS), theirs, atol=1e-5, rtol=0)


def test_another_folder_takes_its_place(tmp_path):
    from shutil import copytree

    copytree(str(files("rlr.toy") / "assets" / "tiny_hpsv2"), tmp_path / "other")
    a, b = TinyHPSv2(), TinyHPSv2(str(tmp_path / "other"))
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(a(pixels, CAPTIONS[:2]), b(pixels, CAPTIONS[:2]))
    assert a.label == "TinyHPSv2"
    assert a.scales == {"x100": 100.0}
