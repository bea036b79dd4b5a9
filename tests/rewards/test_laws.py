"""Laws of every reward: own prompt, equivariance, a gradient exactly where one is claimed, range, precision."""

from collections.abc import Callable

import pytest
import torch

from rlr.rewards import Brightness, ExactCheck, JPEGCompressibility, JPEGIncompressibility, PickScore, Reward, TinyHPSv2
from rlr.rewards.clipscore import CLIPScore
from rlr.rewards.combine import Combine
from rlr.rewards.preprocessing import Preprocessing
from tests.rewards.authors import aes, hpsv2, imagereward
from tests.rewards.folder import FOLDER

OFFICIAL = Preprocessing.official
PROMPTS = ["a red circle", "two blue squares", "a green triangle", "three red circles"]
CASES: dict[str, tuple[Callable[[], Reward], bool, tuple[float, float]]] = {
    "brightness": (Brightness, False, (0, 1)),
    "jpeg": (JPEGIncompressibility, False, (0.1, 10)),
    "minus jpeg": (JPEGCompressibility, False, (-10, -0.1)),
    "exact": (ExactCheck, True, (0, 1)),
    "exact, partial": (lambda: ExactCheck(partial=True), True, (0, 1)),
    "pickscore": (lambda: PickScore(str(FOLDER)), True, (-100, 100)),
    "pickscore, in chunks": (lambda: PickScore(str(FOLDER), chunk=3, cache=2), True, (-100, 100)),
    "pickscore, official": (lambda: PickScore(str(FOLDER), preprocessing=OFFICIAL), True, (-100, 100)),
    "clipscore": (lambda: CLIPScore(str(FOLDER)), True, (-1, 1)),
    "hpsv2": (hpsv2, True, (-1, 1)),
    "hpsv2, official": (lambda: hpsv2(preprocessing=OFFICIAL), True, (-1, 1)),
    "hpsv2, tiny": (TinyHPSv2, True, (-1, 1)),
    "aes": (aes, False, (-10, 10)),
    "aes, official": (lambda: aes(preprocessing=OFFICIAL), False, (-10, 10)),
    "imagereward": (imagereward, True, (-5, 5)),
    "imagereward, official": (lambda: imagereward(preprocessing=OFFICIAL), True, (-5, 5)),
    "combine": (lambda: both(Brightness()), True, (-10, 10)),
    "combine with a black box": (lambda: both(JPEGCompressibility()), True, (-20, 20)),
}


def both(other: Reward) -> Combine:
    return Combine({"pick": PickScore(str(FOLDER)), "other": other}, {"pick": 0.1, "other": 0.5})


@pytest.fixture(params=CASES, scope="module")
def case(request):
    make, reads_prompt, interval = CASES[request.param]
    return make(), reads_prompt, interval


@pytest.fixture(scope="module")
def pictures():
    """Renders of the prompts, a little noisy so that no two pictures are alike."""
    from rlr.data.scenes import draw_pictures

    clean = draw_pictures(PROMPTS, seed=1).float() / 255
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    return (clean + 0.02 * noise).clamp(0, 1)


def test_one_number_a_sample_in_range(case, pictures):
    reward, _, (low, high) = case
    scores = reward(pictures, PROMPTS)
    assert scores.shape == (4,)
    assert scores.dtype == torch.float32
    assert ((low <= scores) & (scores <= high)).all()


def test_depends_on_its_own_prompt_alone(case, pictures):
    reward, reads_prompt, _ = case
    before = reward(pictures, PROMPTS)
    after = reward(pictures, [PROMPTS[0], PROMPTS[0], *PROMPTS[2:]])
    changed = (before - after).abs() > 1e-4
    assert changed.tolist() == [False, reads_prompt, False, False]


def test_depends_on_its_own_picture_alone(case, pictures):
    reward, _, _ = case
    other = pictures.clone()
    other[1] = 0.25 + 0.5 * pictures[1].flip(-1).roll(1, 0)
    other[1, 2] *= 0.3
    changed = (reward(pictures, PROMPTS) - reward(other, PROMPTS)).abs() > 1e-4
    assert changed.tolist() == [False, True, False, False]


def test_permuting_the_batch_permutes_the_scores(case, pictures):
    reward, order = case[0], [2, 0, 3, 1]
    permuted = reward(pictures[order], [PROMPTS[i] for i in order])
    torch.testing.assert_close(permuted, reward(pictures, PROMPTS)[order], atol=1e-4, rtol=1e-5)


def test_has_a_gradient_in_the_pixels_iff_it_says_so(case, pictures):
    reward = case[0]
    pixels = pictures.clone().requires_grad_()
    scores = reward(pixels, PROMPTS)
    assert scores.requires_grad == reward.differentiable
    if reward.differentiable:
        (gradient,) = torch.autograd.grad(scores[1], pixels)
        assert gradient[1].abs().max() > 0
        assert gradient[[0, 2, 3]].abs().max() == 0


def test_autocast_changes_nothing(case, pictures):
    reward = case[0]
    plain = reward(pictures, PROMPTS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(reward(pictures, PROMPTS), plain)


def test_is_frozen_and_stays_in_eval_mode(case):
    reward = case[0]
    reward.train()
    assert not any(part.training for part in reward.modules())
    assert not any(p.requires_grad for p in reward.parameters())
