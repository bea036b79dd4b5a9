"""AES against flow_grpo's scoring of files, AlignProp, VADER and the published head."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from rlr.io.weights import read_state
from rlr.rewards.networks.aesthetic import Aesthetic
from rlr.rewards.networks.head import build_head
from rlr.rewards.networks.preprocessing import Preprocessing
from tests.rewards.authors import aes, aes_files, assert_gradient, gradient, hpsv2, pictures, to01
from tests.rewards.folder import FOLDER
from tests.rewards.vectors import facts, reads, tensors

PROMPTS = facts("aes_tiny")["combo_prompts"]


@pytest.fixture(scope="module")
def official():
    return aes(preprocessing=Preprocessing.official)


@pytest.fixture(scope="module")
def training():
    return aes()


@reads("aes_tiny", "weights.*")
def test_the_networks_have_the_weights_of_the_files(training, vectors):
    found = {f"weights.clip.{key}": value for key, value in training.clip.state_dict().items()}
    found |= {f"weights.mlp.{key}": value for key, value in training.head.state_dict().items()}
    assert found.keys() == set(vectors)
    for key, value in found.items():
        assert torch.equal(value, vectors[key])


@reads(
    "aes_tiny", "inputs.image_*", *(f"outputs.pil.{name}" for name in ("pixel_values", "image_embeds_raw", "scores"))
)
def test_scores_of_files(official, vectors):
    files = pictures(vectors)
    pixels = torch.cat([official.preprocess(file) for file in files])
    torch.testing.assert_close(pixels, vectors["outputs.pil.pixel_values"], atol=1e-5, rtol=0)
    embeddings = official.clip(pixel_values=pixels).image_embeds
    torch.testing.assert_close(embeddings, vectors["outputs.pil.image_embeds_raw"], atol=1e-5, rtol=1e-5)
    scores = torch.cat([official(file, [""]) for file in files])
    torch.testing.assert_close(scores, vectors["outputs.pil.scores"], atol=1e-5, rtol=0)


@reads("aes_tiny", "inputs.pixels_square", "outputs.alignprop.*", "outputs.alignprop_*.loss")
def test_scores_and_gradient_of_alignprop(training, vectors):
    scores, found = gradient(training, vectors["inputs.pixels_square"], PROMPTS)
    torch.testing.assert_close(scores, vectors["outputs.alignprop.scores"], atol=1e-5, rtol=0)
    torch.testing.assert_close(-0.1 * scores, vectors["outputs.alignprop_max.loss"], atol=1e-5, rtol=0)
    expected = vectors["outputs.alignprop_target10.loss"]
    torch.testing.assert_close(0.1 * (scores - 10).abs(), expected, atol=1e-5, rtol=0)
    assert_gradient(found, vectors["outputs.alignprop.grad_scores_sum"])


@reads("aes_tiny", "inputs.pixels_{shape}", "outputs.vader_{shape}.*")
@pytest.mark.parametrize("shape", ["square", "nonsquare"])
def test_scores_and_gradient_of_vader(training, vectors, shape):
    scores, found = gradient(training, vectors[f"inputs.pixels_{shape}"], PROMPTS)
    torch.testing.assert_close(scores.mean(), vectors[f"outputs.vader_{shape}.scores_mean"], atol=1e-5, rtol=0)
    loss = 0.1 * (scores - 10).abs().mean()
    torch.testing.assert_close(loss, vectors[f"outputs.vader_{shape}.loss_mean"], atol=1e-5, rtol=0)
    # the target, 10, is above every score
    assert_gradient(-0.1 / 3 * found, vectors[f"outputs.vader_{shape}.grad_loss_mean"])


@pytest.mark.filterwarnings("ignore:HPSv2.1 reads 77 tokens")
@reads("aes_tiny", "inputs.pixels_nonsquare", "outputs.{name}.*")
@pytest.mark.parametrize(("name", "factor"), [("combo_vader", 1.5), ("combo_rlr", 1.3)])
def test_the_published_combination_with_hpsv2(training, vectors, name, factor):
    x = vectors["inputs.pixels_nonsquare"].clone().requires_grad_()
    first, second = training(to01(x), PROMPTS), hpsv2()(to01(x), PROMPTS)
    loss = (factor * 0.1 * (first - 10).abs().mean() + (1 - second).abs().mean()) / 2
    torch.testing.assert_close(loss.detach(), vectors[f"outputs.{name}.loss"], atol=1e-5, rtol=0)
    reward = (first.mean() + 15 * second.mean()) / 2
    torch.testing.assert_close(reward.detach(), vectors[f"outputs.{name}.reward"], atol=3e-5, rtol=0)
    assert_gradient(torch.autograd.grad(loss, x)[0], vectors[f"outputs.{name}.grad_loss"])


def unfolded():
    """The published head as the affine map that it is: the first of five layers does it all, the others pass it on."""
    folded = tensors("aes_real_head")
    widths, state = [768, 1024, 128, 64, 16, 1], {}
    for i, a, b in zip((0, 2, 4, 6, 7), widths, widths[1:], strict=False):
        state[f"layers.{i}.weight"], state[f"layers.{i}.bias"] = torch.zeros(b, a), torch.zeros(b)
        state[f"layers.{i}.weight"][0, 0] = 1
    state["layers.0.weight"][0], state["layers.0.bias"][0] = folded["folded.weight"], folded["folded.bias"]
    return state


@reads("aes_real_head", "*")
def test_the_published_head(tmp_path, vectors):
    assert vectors["folded.weight"].norm().item() == pytest.approx(17.99562477643365, rel=1e-12)
    assert vectors["folded.bias"].item() == pytest.approx(5.236645844819847, rel=1e-12)
    embeddings = vectors["inputs.clip_l14_image_embeds_raw"].clone().requires_grad_()
    scores = build_head(unfolded(), tmp_path)(F.normalize(embeddings, dim=-1))
    torch.testing.assert_close(scores.detach(), vectors["outputs.scores"], atol=1e-5, rtol=0)
    (found,) = torch.autograd.grad(scores.sum(), embeddings)
    assert_gradient(found, vectors["outputs.grad_scores_sum"])


@reads("lists", "keys_aes_head")
def test_the_keys_of_the_published_head(tmp_path, vectors):
    known = vectors["keys_aes_head"]
    state = build_head(unfolded(), tmp_path).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == known["keys"]
    assert (len(state), sum(value.numel() for value in state.values())) == (known["count"], known["numel"])


def test_a_head_that_was_saved_on_a_gpu_is_read_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    torch.save(unfolded(), tmp_path / "head.pth")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="deserialize object on a CUDA device"):
            torch.load(tmp_path / "head.pth", weights_only=True)
    found = read_state(tmp_path / "head.pth")
    assert all(torch.equal(found[key], value) for key, value in unfolded().items())


def test_prompts_do_not_matter(training):
    pixels = torch.rand(3, 3, 40, 36, generator=torch.Generator().manual_seed(0))
    assert torch.equal(training(pixels, ["", "", ""]), training(pixels, PROMPTS))


def test_a_head_that_bears_the_published_name_must_be_the_published_one(tmp_path):
    folder, head = aes_files()
    other = tmp_path / "sac+logos+ava1-l14-linearMSE.pth"
    other.write_bytes(head.read_bytes())
    with pytest.raises(ValueError, match=r"expected the sac\+logos\+ava1-l14-linearMSE\.pth .* with sha256 21dd590f"):
        Aesthetic(str(folder), str(tmp_path))
    assert Aesthetic(str(folder), str(tmp_path), verify=False).label == "AES"


def test_a_head_without_a_layer_is_refused(tmp_path):
    folder, head = aes_files()
    state = torch.load(head, weights_only=True)
    del state["layers.6.weight"]
    torch.save(state, tmp_path / "head.pth")
    with pytest.raises(ValueError, match=r"head\.pth lacks 1 of the five layers of the head"):
        Aesthetic(str(folder), str(tmp_path / "head.pth"))


def test_the_tower_of_a_whole_clip_model_is_read_without_a_word(recwarn):
    Aesthetic(str(FOLDER), str(aes_files()[1]))
    assert not [warning for warning in recwarn if "not read" in str(warning.message)]


def test_weights_of_another_network_beside_the_tower_are_named(tmp_path):
    folder, head = aes_files()
    state = load_file(folder / "model.safetensors") | {"vision_model.more": torch.zeros(1)}
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.warns(UserWarning, match=r"CLIPVisionModelWithProjection does not have .*: vision_model\.more; check"):
        Aesthetic(str(tmp_path), str(head))


def test_a_layer_too_many_is_refused(tmp_path):
    folder, head = aes_files()
    torch.save(torch.load(head, weights_only=True) | {"layers.8.bias": torch.zeros(1)}, tmp_path / "head.pth")
    with pytest.raises(ValueError, match=r"head\.pth does not fit Head: layers\.8\.bias is foreign"):
        Aesthetic(str(folder), str(tmp_path / "head.pth"))
