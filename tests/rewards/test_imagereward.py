"""ImageReward against the authors' program: scoring of files, ranking, and the score with a gradient of ReFL."""

import pytest
import torch

from rlr.rewards.networks.imagereward import MEAN, STD, ImageReward, convert
from rlr.rewards.networks.preprocessing import Preprocessing
from tests.rewards.authors import (
    assert_gradient,
    gradient,
    imagereward,
    imagereward_files,
    matrix,
    pictures,
    weights,
)
from tests.rewards.vectors import FIXTURES, facts, reads

PROMPTS = facts("imagereward_tiny")["prompts"]
pytestmark = pytest.mark.filterwarnings("ignore:ImageReward reads 35 tokens")


@pytest.fixture(scope="module")
def official():
    return imagereward(preprocessing=Preprocessing.official)


@pytest.fixture(scope="module")
def training():
    return imagereward()


@reads("imagereward_tiny", "weights.*")
def test_the_networks_have_the_weights_of_the_file(training, vectors):
    modules = convert({key.removeprefix("weights."): vectors[key] for key in vectors})
    for name, state in modules.items():
        found = getattr(training, name).state_dict()
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], value) for key, value in state.items())
    # two projections that no score reads, weights and biases, and the numbers of the positions
    assert sum(map(len, modules.values())) == len(vectors) - 5


@reads("imagereward_tiny", "inputs.image_*", *(f"outputs.pil.{name}" for name in ("scores", "raw_scores", "rank")))
def test_scores_of_files(official, vectors):
    scores = matrix(official, pictures(vectors), PROMPTS)
    torch.testing.assert_close(scores, vectors["outputs.pil.scores"], atol=3e-5, rtol=0)
    torch.testing.assert_close(scores * STD + MEAN, vectors["outputs.pil.raw_scores"], atol=3e-5, rtol=0)
    ranks = scores.argsort(1, descending=True).argsort(1) + 1
    assert torch.equal(ranks, vectors["outputs.pil.rank"])


@reads(
    "imagereward_tiny",
    "inputs.image_*",
    *(f"outputs.pil.{name}" for name in ("pixel_values", "image_embeds_last_hidden", "text_features")),
)
def test_what_the_network_reads_of_files(official, vectors):
    pixels = torch.cat([official.preprocess(file) for file in pictures(vectors)])
    torch.testing.assert_close(pixels, vectors["outputs.pil.pixel_values"], atol=1e-5, rtol=0)
    states = official.vision(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(states, vectors["outputs.pil.image_embeds_last_hidden"], atol=3e-5, rtol=0)
    ids, mask = official._text_features(PROMPTS).unbind(1)
    for i in range(5):
        image = states[i].expand(3, -1, -1)
        found = official.text(input_ids=ids, attention_mask=mask, encoder_hidden_states=image).last_hidden_state
        torch.testing.assert_close(found[:, 0], vectors["outputs.pil.text_features"][:, i], atol=3e-5, rtol=0)


@reads("imagereward_tiny", "inputs.input_ids", "inputs.attention_mask", "outputs.text_only_cls")
def test_tokens_and_texts_without_a_picture(training, vectors):
    ids, mask = training._text_features(PROMPTS).unbind(1)
    assert torch.equal(ids, vectors["inputs.input_ids"])
    assert torch.equal(mask, vectors["inputs.attention_mask"])
    # BLIP's two tokens follow the vocabulary
    assert training.tokenizer("[DEC] [ENC]").input_ids[1:-1] == [123, 124]
    states = training.text(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(states[:, 0], vectors["outputs.text_only_cls"], atol=3e-5, rtol=0)


@reads("imagereward_tiny", "inputs.pixels_{shape}", "outputs.refl_{shape}.*")
@pytest.mark.parametrize("shape", ["square", "wide", "tall"])
def test_scores_and_gradient_of_refl(training, vectors, shape):
    scores, found = gradient(training, vectors[f"inputs.pixels_{shape}"], PROMPTS)
    torch.testing.assert_close(scores[:, None], vectors[f"outputs.refl_{shape}.scores"], atol=3e-5, rtol=0)
    loss = (2 - scores).relu()[:, None]
    torch.testing.assert_close(loss, vectors[f"outputs.refl_{shape}.loss_per_sample"], atol=3e-5, rtol=0)
    assert_gradient(found, vectors[f"outputs.refl_{shape}.grad_scores_sum"])


@reads("imagereward_tiny", "inputs.pixels_square", "outputs.rlr_noscale.*")
def test_pixels_outside_0_to_1_which_the_reward_refuses_and_published_code_scored(training, vectors):
    x = vectors["inputs.pixels_square"].clone().requires_grad_()
    with pytest.raises(ValueError, match=r"expected pixels in \[0, 1\], got \[-1\.15, 1\.15\]"):
        training(x, PROMPTS)
    scores = training.rate(x, training._text_features(PROMPTS))
    torch.testing.assert_close(scores.detach()[:, None], vectors["outputs.rlr_noscale.scores"], atol=3e-5, rtol=0)
    assert_gradient(torch.autograd.grad(scores.sum(), x)[0], vectors["outputs.rlr_noscale.grad_scores_sum"])


@reads("lists", "keys_imagereward_to_transformers", "keys_imagereward_full")
def test_every_key_goes_where_the_published_conversion_puts_it(vectors):
    known, keys = vectors["keys_imagereward_to_transformers"], vectors["keys_imagereward_full"]["keys"]
    modules = convert({key: key for key in keys})
    found = {old: (module, new) for module, state in modules.items() for new, old in state.items()}
    assert keys.keys() - found.keys() == set(known["unused_for_score"])
    assert len(known["map"]) == len(found)
    for key, (module, name) in found.items():
        assert known["map"][key] == {"module": module.replace("head", "mlp"), "key": name}


def test_a_foreign_key_is_named_and_left_out(tmp_path):
    torch.save(weights("imagereward_tiny") | {"blip.temp": torch.zeros(())}, tmp_path / "more.pt")
    message = r"more\.pt holds 1 weights that ImageReward does not have and that are not read: blip\.temp; check"
    with pytest.warns(UserWarning, match=message):
        ImageReward(str(tmp_path / "more.pt"), str(FIXTURES / "imagereward_tokenizer"), str(imagereward_files()[1]))


def test_a_lacking_weight_is_named(tmp_path):
    state = weights("imagereward_tiny")
    del state["blip.text_encoder.encoder.layer.1.crossattention.self.key.weight"]
    torch.save(state, tmp_path / "cut.pt")
    with pytest.raises(ValueError, match=r"cut\.pt does not fit BlipTextModel: encoder\.layer\.1\.cross.* is missing"):
        ImageReward(str(tmp_path / "cut.pt"), str(FIXTURES / "imagereward_tokenizer"), str(imagereward_files()[1]))


def test_a_prompt_that_loses_its_end_is_named():
    with pytest.warns(UserWarning, match=r"ImageReward reads 35 tokens and ignores the end of 1 prompt\(s\)"):
        imagereward()(torch.rand(2, 3, 32, 32), ["a dog", "a cat " * 40])
