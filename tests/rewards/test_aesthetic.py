"""AES against flow_grpo's scoring of files, AlignProp, VADER and the published head."""

import pytest
import torch
from torch.nn import functional as F

from rlr.rewards.aesthetic import Aesthetic
from rlr.rewards.head import build_head
from rlr.rewards.preprocessing import Preprocessing
from tests.rewards.authors import aes, aes_files, assert_gradient, facts, gradient, hpsv2, picture, tensors, to01

EXPECTED = tensors("aes")
PROMPTS = facts("aes")["prompts"]


@pytest.fixture(scope="module")
def official():
    return aes(preprocessing=Preprocessing.official)


@pytest.fixture(scope="module")
def training():
    return aes()


def test_scores_of_files(official):
    pixels = torch.cat([official.preprocess(picture("aes", i)) for i in range(5)])
    torch.testing.assert_close(pixels, EXPECTED["outputs.pil.pixel_values"], atol=1e-5, rtol=0)
    embeddings = official.clip(pixel_values=pixels).image_embeds
    torch.testing.assert_close(embeddings, EXPECTED["outputs.pil.image_embeds_raw"], atol=1e-5, rtol=1e-5)
    scores = torch.cat([official(picture("aes", i), [""]) for i in range(5)])
    torch.testing.assert_close(scores, EXPECTED["outputs.pil.scores"], atol=1e-5, rtol=0)


def test_scores_and_gradient_of_alignprop(training):
    scores, found = gradient(training, EXPECTED["inputs.pixels_square"], PROMPTS)
    torch.testing.assert_close(scores, EXPECTED["outputs.alignprop.scores"], atol=1e-5, rtol=0)
    torch.testing.assert_close(-0.1 * scores, EXPECTED["outputs.alignprop_max.loss"], atol=1e-5, rtol=0)
    expected = EXPECTED["outputs.alignprop_target10.loss"]
    torch.testing.assert_close(0.1 * (scores - 10).abs(), expected, atol=1e-5, rtol=0)
    assert_gradient(found, EXPECTED["outputs.alignprop.grad_scores_sum"])


@pytest.mark.parametrize("shape", ["square", "nonsquare"])
def test_scores_and_gradient_of_vader(training, shape):
    scores, found = gradient(training, EXPECTED[f"inputs.pixels_{shape}"], PROMPTS)
    torch.testing.assert_close(scores.mean(), EXPECTED[f"outputs.vader_{shape}.scores_mean"], atol=1e-5, rtol=0)
    loss = 0.1 * (scores - 10).abs().mean()
    torch.testing.assert_close(loss, EXPECTED[f"outputs.vader_{shape}.loss_mean"], atol=1e-5, rtol=0)
    if f"outputs.vader_{shape}.grad_loss_mean" in EXPECTED:
        # the target, 10, is above every score
        assert_gradient(-0.1 / 3 * found, EXPECTED[f"outputs.vader_{shape}.grad_loss_mean"])


@pytest.mark.filterwarnings("ignore:HPSv2.1 reads 77 tokens")
@pytest.mark.parametrize(("name", "factor"), [("combo_vader", 1.5), ("combo_rlr", 1.3)])
def test_the_published_combination_with_hpsv2(training, name, factor):
    x = EXPECTED["inputs.pixels_nonsquare"].clone().requires_grad_()
    first, second = training(to01(x), PROMPTS), hpsv2()(to01(x), PROMPTS)
    loss = (factor * 0.1 * (first - 10).abs().mean() + (1 - second).abs().mean()) / 2
    torch.testing.assert_close(loss.detach(), EXPECTED[f"outputs.{name}.loss"], atol=1e-5, rtol=0)
    reward = (first.mean() + 15 * second.mean()) / 2
    torch.testing.assert_close(reward.detach(), EXPECTED[f"outputs.{name}.reward"], atol=3e-5, rtol=0)
    if f"outputs.{name}.grad_loss" in EXPECTED:
        assert_gradient(torch.autograd.grad(loss, x)[0], EXPECTED[f"outputs.{name}.grad_loss"])


def unfolded(weight, bias):
    """The five layers of an affine map: the first does it all, the others pass its first number on."""
    widths, state = [768, 1024, 128, 64, 16, 1], {}
    for i, a, b in zip((0, 2, 4, 6, 7), widths, widths[1:], strict=False):
        state[f"layers.{i}.weight"], state[f"layers.{i}.bias"] = torch.zeros(b, a), torch.zeros(b)
        state[f"layers.{i}.weight"][0, 0] = 1
    state["layers.0.weight"][0], state["layers.0.bias"][0] = weight, bias
    return state


def test_the_published_head(tmp_path):
    vectors = tensors("aes_real_head")
    head = build_head(unfolded(vectors["folded.weight"], vectors["folded.bias"].squeeze()), tmp_path)
    embeddings = vectors["inputs.clip_l14_image_embeds_raw"].clone().requires_grad_()
    scores = head(F.normalize(embeddings, dim=-1))
    torch.testing.assert_close(scores.detach(), vectors["outputs.scores"], atol=1e-5, rtol=0)
    (found,) = torch.autograd.grad(scores.sum(), embeddings)
    assert_gradient(found, vectors["outputs.grad_scores_sum"])


def test_prompts_do_not_matter(training):
    pixels = to01(EXPECTED["inputs.pixels_square"])
    assert torch.equal(training(pixels, ["", "", ""]), training(pixels, PROMPTS))


def test_a_head_that_bears_the_published_name_must_be_the_published_one(tmp_path):
    folder, head = aes_files()
    other = tmp_path / "sac+logos+ava1-l14-linearMSE.pth"
    other.write_bytes(head.read_bytes())
    with pytest.raises(ValueError, match=r"is not the sac\+logos\+ava1-l14-linearMSE\.pth .*theirs is 21dd590f"):
        Aesthetic(str(folder), str(tmp_path))
    assert Aesthetic(str(folder), str(tmp_path), verify=False).label == "AES"


def test_a_head_without_a_layer_is_refused(tmp_path):
    folder, head = aes_files()
    state = torch.load(head, weights_only=True)
    del state["layers.6.weight"]
    torch.save(state, tmp_path / "head.pth")
    with pytest.raises(ValueError, match=r"head\.pth lacks 1 of the five layers of the head"):
        Aesthetic(str(folder), str(tmp_path / "head.pth"))
