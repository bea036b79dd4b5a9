"""PickScore against its authors' program and VADER's differentiable one, which takes one image and prompt at a time."""

import pytest
import torch

from rlr.rewards import PickScore
from rlr.rewards.networks.preprocessing import Preprocessing
from tests.rewards.authors import assert_gradient, gradient, matrix, pictures
from tests.rewards.folder import FOLDER
from tests.rewards.vectors import facts, reads

PROMPTS = facts("pickscore_tiny")["prompts"]
# the third prompt is longer than the model reads
pytestmark = pytest.mark.filterwarnings("ignore:PickScore reads 77 tokens")


@pytest.fixture(scope="module")
def reward():
    return PickScore(str(FOLDER))


@pytest.fixture(scope="module")
def official():
    return PickScore(str(FOLDER), preprocessing=Preprocessing.official)


@reads("pickscore_tiny", "inputs.pixels_{shape}", "outputs.vader_{shape}.*")
@pytest.mark.parametrize("shape", ["square", "wide", "tall"])
def test_scores_and_gradients_of_vader(reward, vectors, shape):
    x = vectors[f"inputs.pixels_{shape}"]
    scores, found = gradient(reward, x, PROMPTS)
    torch.testing.assert_close(scores, vectors[f"outputs.vader_{shape}.scores"], atol=2e-4, rtol=0)
    loss = (1 - scores / 100).abs()
    torch.testing.assert_close(loss, vectors[f"outputs.vader_{shape}.loss"], atol=2e-6, rtol=0)
    assert_gradient(found, vectors[f"outputs.vader_{shape}.grad_scores_sum"])
    # the published slip, every image with the first prompt, is another number
    slip, _ = gradient(reward, x, PROMPTS[:1] * 3)
    expected = vectors[f"outputs.vader_{shape}.buggy_batched_scores_mean"]
    torch.testing.assert_close(slip.mean(), expected, atol=2e-4, rtol=0)
    assert (slip.mean() - scores.mean()).abs() > 1


@reads("pickscore_tiny", "inputs.image_*", "outputs.pil.pixel_values", "outputs.pil.image_features")
def test_what_the_network_reads_of_files(official, vectors):
    files = pictures(vectors)
    pixels = torch.cat([official.preprocess(file) for file in files])
    torch.testing.assert_close(pixels, vectors["outputs.pil.pixel_values"], atol=1e-5, rtol=0)
    features = torch.cat([official.features(file) for file in files])
    torch.testing.assert_close(features, vectors["outputs.pil.image_features"], atol=3e-6, rtol=0)


@reads("pickscore_tiny", "inputs.image_*", "outputs.pil.scores", "outputs.pil.probs")
def test_scores_and_preferences_of_files(official, vectors):
    scores = matrix(official, pictures(vectors), PROMPTS)
    torch.testing.assert_close(scores, vectors["outputs.pil.scores"], atol=2e-4, rtol=0)
    torch.testing.assert_close(scores.softmax(-1), vectors["outputs.pil.probs"], atol=1e-5, rtol=0)


@reads("pickscore_tiny", "inputs.token_ids", "inputs.attention_mask", "outputs.text_features")
def test_tokens_and_text_features(reward, vectors):
    tokens = reward.tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    assert torch.equal(tokens.input_ids, vectors["inputs.token_ids"])
    assert torch.equal(tokens.attention_mask, vectors["inputs.attention_mask"])
    torch.testing.assert_close(reward._text_features(PROMPTS), vectors["outputs.text_features"], atol=3e-6, rtol=0)


def test_the_first_prompt_that_loses_its_end_is_named_once():
    reward = PickScore(str(FOLDER))
    with pytest.warns(
        UserWarning, match=r"PickScore reads 77 tokens and ignores the end of 1 prompt\(s\).*'a cat"
    ) as found:
        [reward(torch.rand(2, 3, 32, 32), ["a dog", prompt * 80]) for prompt in ("a cat ", "a red cat ")]
    assert len([one for one in found if "ignores the end" in str(one.message)]) == 1


def test_a_prompt_is_encoded_once(reward):
    pixels, calls = torch.rand(3, 3, 32, 32), []
    forward = reward.clip.text_model.forward
    reward.clip.text_model.forward = lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs)
    for _ in range(3):
        reward(pixels, ["something new", "something new", "something else"])
    del reward.clip.text_model.forward
    assert len(calls) == 2


def test_the_cache_serves_training_after_evaluation(reward):
    with torch.inference_mode():
        reward(torch.rand(1, 3, 32, 32), ["seen in validation first"])
    pixels = torch.rand(1, 3, 32, 32, requires_grad=True)
    reward(pixels, ["seen in validation first"]).sum().backward()
    assert pixels.grad.abs().max() > 0


def test_no_such_folder():
    with pytest.raises(FileNotFoundError, match=r"no CLIP\w+ can be loaded from '/nowhere'; set a local folder"):
        PickScore("/nowhere", "/nowhere")
