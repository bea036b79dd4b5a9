"""ImageReward against the authors' program: scoring of files, ranking, and the score with a gradient of ReFL."""

import pytest
import torch

from rlr.rewards.imagereward import MEAN, STD, ImageReward, convert
from rlr.rewards.preprocessing import Preprocessing
from tests.rewards.authors import (
    FIXTURES,
    assert_gradient,
    facts,
    gradient,
    imagereward,
    imagereward_files,
    matrix,
    picture,
    tensors,
    weights,
)
from tests.rewards.recipe import group

PROMPTS = facts("imagereward")["prompts"]
EXPECTED = tensors("imagereward")
pytestmark = pytest.mark.filterwarnings("ignore:ImageReward reads 35 tokens")


@pytest.fixture(scope="module")
def official():
    return imagereward(preprocessing=Preprocessing.official)


@pytest.fixture(scope="module")
def training():
    return imagereward()


def test_scores_of_files(official):
    scores = matrix(official, "imagereward", PROMPTS)
    torch.testing.assert_close(scores, EXPECTED["outputs.pil.scores"], atol=3e-5, rtol=0)
    torch.testing.assert_close(scores * STD + MEAN, EXPECTED["outputs.pil.raw_scores"], atol=3e-5, rtol=0)
    ranks = scores.argsort(1, descending=True).argsort(1) + 1
    assert torch.equal(ranks, EXPECTED["outputs.pil.rank"])


def test_what_the_network_reads_of_files(official):
    pixels = torch.cat([official.preprocess(picture("imagereward", i)) for i in range(5)])
    torch.testing.assert_close(pixels, EXPECTED["outputs.pil.pixel_values"], atol=1e-5, rtol=0)
    states = official.vision(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(states, EXPECTED["outputs.pil.image_embeds_last_hidden"], atol=3e-5, rtol=0)
    ids, mask = official._encode(PROMPTS).unbind(1)
    for i in range(5):
        image = states[i].expand(3, -1, -1)
        found = official.text(input_ids=ids, attention_mask=mask, encoder_hidden_states=image).last_hidden_state
        torch.testing.assert_close(found[:, 0], EXPECTED["outputs.pil.text_features"][:, i], atol=3e-5, rtol=0)


def test_tokens(training):
    ids, mask = training._encode(PROMPTS).unbind(1)
    assert torch.equal(ids, EXPECTED["inputs.input_ids"])
    assert torch.equal(mask, EXPECTED["inputs.attention_mask"])
    # BLIP's two tokens follow the vocabulary
    assert training.tokenizer("[DEC] [ENC]").input_ids[1:-1] == [123, 124]


@pytest.mark.parametrize("shape", ["square", "wide", "tall"])
def test_scores_and_gradient_of_refl(training, shape):
    scores, found = gradient(training, EXPECTED[f"inputs.pixels_{shape}"], PROMPTS)
    torch.testing.assert_close(scores[:, None], EXPECTED[f"outputs.refl_{shape}.scores"], atol=3e-5, rtol=0)
    loss = (2 - scores).relu()[:, None]
    torch.testing.assert_close(loss, EXPECTED[f"outputs.refl_{shape}.loss_per_sample"], atol=3e-5, rtol=0)
    assert_gradient(found, EXPECTED[f"outputs.refl_{shape}.grad_scores_sum"])


def test_every_key_goes_where_the_published_conversion_puts_it():
    known = facts("keys")
    keys = [key.replace("#", str(i)) for key in known["imagereward_full"] for i in range(24 if "#" in key else 1)]
    modules = convert({key: key for key in keys})
    found = {old: [module, new] for module, state in modules.items() for new, old in state.items()}
    expected = known["imagereward_map"]
    assert {group(key) for key in found} == expected.keys()
    for key, (module, name) in found.items():
        there, template = expected[group(key)]
        assert (module, name if key.startswith("mlp.") else group(name)) == (
            there.replace("mlp", "head"),
            template.replace("#", key.split(".")[2]) if key.startswith("mlp.") else template,
        )
        assert [part for part in name.split(".") if part.isdigit()] == [p for p in key.split(".") if p.isdigit()]


def test_a_foreign_key_is_named_and_left_out(tmp_path):
    torch.save(weights("imagereward") | {"blip.temp": torch.zeros(())}, tmp_path / "more.pt")
    with pytest.warns(UserWarning, match=r"ImageReward reads nothing from blip\.temp \(1 such keys\)"):
        ImageReward(str(tmp_path / "more.pt"), str(FIXTURES / "imagereward_tokenizer"), str(imagereward_files()[1]))


def test_a_lacking_weight_is_named(tmp_path):
    state = weights("imagereward")
    del state["blip.text_encoder.encoder.layer.1.crossattention.self.key.weight"]
    torch.save(state, tmp_path / "cut.pt")
    with pytest.raises(ValueError, match=r"cut\.pt does not fit BlipTextModel: encoder\.layer\.1\.cross.* is missing"):
        ImageReward(str(tmp_path / "cut.pt"), str(FIXTURES / "imagereward_tokenizer"), str(imagereward_files()[1]))


def test_a_prompt_that_loses_its_end_is_named():
    with pytest.warns(UserWarning, match=r"ImageReward reads 35 tokens and ignores the end of 1 prompt\(s\)"):
        imagereward()(torch.rand(2, 3, 32, 32), ["a dog", "a cat " * 40])
