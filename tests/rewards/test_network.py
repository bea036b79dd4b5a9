"""What rewards of networks share: chunks, the cache of texts, and what they refuse."""

import pytest
import torch

from rlr.rewards import PickScore
from rlr.rewards.networks.network import TextCache, in_chunks
from rlr.rewards.networks.preprocessing import CropShortest, Preprocessing, Squash
from tests.rewards.authors import aes, gradient, hpsv2, imagereward
from tests.rewards.folder import FOLDER

PROMPTS = ["a cat", "a dog", "a cat", "two dogs", "rain"]


def pixels(seed=0, n=5):
    return torch.rand(n, 3, 40, 36, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk", [1, 2, 5, 7])
@pytest.mark.parametrize("make", [hpsv2, imagereward, aes], ids=lambda make: make.__name__)
def test_chunks_change_neither_scores_nor_gradients(make, chunk):
    x = 2 * pixels() - 1
    scores, slope = gradient(make(), x, PROMPTS)
    in_parts, slope_in_parts = gradient(make(chunk=chunk), x, PROMPTS)
    torch.testing.assert_close(in_parts, scores, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(slope_in_parts, slope, atol=1e-6, rtol=1e-4)


def test_a_chunk_is_never_larger_and_is_computed_again_for_its_gradient():
    seen = []

    def square(x):
        seen.append(len(x))
        return x.square().sum(1)

    x = torch.rand(5, 2, requires_grad=True)
    total = in_chunks(square, 2, x).sum()
    assert seen == [2, 2, 1]
    total.backward()
    assert sorted(seen[3:]) == [1, 2, 2]
    torch.testing.assert_close(x.grad, 2 * x.detach())
    seen.clear()
    with torch.no_grad():
        in_chunks(square, 2, x)
    assert seen == [2, 2, 1]


def test_the_cache_forgets_what_was_not_used_for_longest():
    encoded = []

    def encode(texts):
        encoded.append(texts)
        return torch.tensor([[float(len(text))] for text in texts])

    cache = TextCache(2)
    assert cache(["a", "bb", "a"], encode).flatten().tolist() == [1, 2, 1]
    assert cache(["a"], encode).item() == 1
    cache(["ccc"], encode)  # in the place of bb
    cache(["a"], encode)
    assert encoded == [["a", "bb"], ["ccc"]]
    assert cache(["bb"], encode).item() == 2
    assert encoded[-1] == ["bb"]


def test_a_batch_larger_than_the_cache():
    cache = TextCache(1)
    rows = cache(["a", "bb", "ccc"], lambda texts: torch.tensor([len(text) for text in texts]))
    assert rows.tolist() == [1, 2, 3]
    assert len(cache) == 1


def test_the_cache_is_on_no_batch_and_serves_training_after_evaluation():
    reward = hpsv2()
    with torch.inference_mode():
        reward(pixels(n=3), ["seen", "in", "validation"])
    row = reward.texts._rows["in", torch.float32]
    assert row.untyped_storage().nbytes() == row.nbytes
    _, slope = gradient(reward, pixels(n=1) * 2 - 1, ["in"])
    assert slope.abs().max() > 0


UNEQUAL = ["a", "three yellow triangles above a green square on a white striped background", "rain", "a cat", "x" * 99]


@pytest.mark.parametrize("make", [hpsv2, imagereward, lambda: PickScore(str(FOLDER))], ids=["hpsv2", "blip", "clip"])
@pytest.mark.filterwarnings("ignore:.*ignores the end")
def test_the_features_of_a_prompt_do_not_depend_on_the_prompts_beside_it(make):
    reward = make()
    together = reward._text_features(UNEQUAL)
    for i, prompt in enumerate(UNEQUAL):
        assert torch.equal(make()._text_features([prompt])[0], together[i])
    assert torch.equal(make()._text_features(UNEQUAL[::-1]).flip(0), together)


def test_ones_own_fit():
    reward = PickScore(str(FOLDER), preprocessing=Squash("bicubic"))
    wide = torch.rand(1, 3, 32, 64)
    assert reward.differentiable
    assert not torch.equal(reward(wide, ["a"]), PickScore(str(FOLDER))(wide, ["a"]))
    same = PickScore(str(FOLDER), preprocessing=CropShortest())
    assert torch.equal(same(wide, ["a"]), PickScore(str(FOLDER))(wide, ["a"]))


def test_the_differentiable_crop_is_near_the_one_of_bytes():
    official = PickScore(str(FOLDER), preprocessing=Preprocessing.official)
    bytes_ = (pixels() * 255).round() / 255
    gap = (official(bytes_, PROMPTS) - PickScore(str(FOLDER))(bytes_, PROMPTS)).abs()
    assert 0 < gap.max() < 0.5  # of scores that differ by tens


def test_float64_is_that_of_the_weights():
    expected = hpsv2()(pixels(), PROMPTS)
    scores = hpsv2().double()(pixels().double(), PROMPTS)
    assert scores.dtype == torch.float64
    torch.testing.assert_close(scores.float(), expected, atol=1e-6, rtol=0)


def test_a_precision_that_changes_after_the_first_call_is_that_of_the_texts_too():
    reward, fresh = hpsv2(), hpsv2().double()
    reward(pixels(), PROMPTS)
    assert torch.equal(reward.double()(pixels().double(), PROMPTS), fresh(pixels().double(), PROMPTS))
    assert reward._text_features(PROMPTS).dtype == torch.float64


@pytest.mark.parametrize("official", [True, False])
def test_features_of_a_picture_that_is_not_finite_are_not_finite(official):
    reward = PickScore(str(FOLDER), preprocessing=Preprocessing.official if official else Preprocessing.training)
    bad = pixels(n=3)
    bad[1, 0, 0, 0] = torch.nan
    features = reward.features(bad)
    assert features.isfinite().all(1).tolist() == [True, False, True]
    assert torch.equal(features[[0, 2]], reward.features(pixels(n=3))[[0, 2]])


@pytest.mark.parametrize(
    "samples", [torch.rand(2, 3, 32, 32), torch.rand(3, 1, 32, 32), torch.rand(3, 2, 3, 32, 32), torch.rand(3, 32, 32)]
)
def test_a_wrong_shape_is_refused(samples):
    with pytest.raises(
        ValueError,
        match=r"HPSv2\.1: expected images of shape .*, got shape .* and 3 prompts",
    ):
        hpsv2()(samples, ["a", "b", "c"])


@pytest.mark.parametrize("samples", [torch.rand(1, 3, 32, 32) * 2 - 1, torch.rand(1, 3, 32, 32) * 255])
def test_pixels_outside_0_to_1_are_refused(samples):
    with pytest.raises(ValueError, match=r"expected pixels in \[0, 1\], got \[.*\]; map and clamp"):
        hpsv2()(samples, ["a"])
