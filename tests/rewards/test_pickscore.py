"""PickScore against its authors' program and VADER's differentiable one.

``tests/vectors/pickscore`` holds a random CLIP model and tokenizer in transformers' layout, and the scores and pixel
gradients of VADER's differentiable PickScore (one picture and prompt at a time) on it, with transformers 4.46;
``tests/fixtures/rewards/pickscore.safetensors`` what PickScore's own program makes of picture files with it.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from rlr.rewards import PickScore
from rlr.rewards.preprocessing import Preprocessing
from tests.rewards.authors import assert_gradient, matrix, picture, tensors
from tests.rewards.folder import FOLDER

# the third prompt is longer than the model reads
pytestmark = pytest.mark.filterwarnings("ignore:PickScore reads 77 tokens")


@pytest.fixture(scope="module")
def reward():
    return PickScore(str(FOLDER))


@pytest.fixture(scope="module")
def vectors():
    return load_file(FOLDER / "vectors.safetensors"), json.loads((FOLDER / "prompts.json").read_text())


@pytest.mark.parametrize("shape", ["square", "wide", "tall"])
def test_scores_and_gradients(reward, vectors, shape):
    expected, prompts = vectors
    x = expected[f"pixels_{shape}"].clone().requires_grad_()
    scores = reward((x / 2 + 0.5).clamp(0, 1), prompts)
    torch.testing.assert_close(scores.detach(), expected[f"scores_{shape}"], atol=2e-4, rtol=0)
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    assert_gradient(gradient, expected[f"gradients_{shape}"])


def test_scores_and_preferences_of_files(vectors):
    prompts, expected = vectors[1], tensors("pickscore")
    official = PickScore(str(FOLDER), preprocessing=Preprocessing.official)
    pixels = torch.cat([official.preprocess(picture("pickscore", i)) for i in range(5)])
    torch.testing.assert_close(pixels, expected["outputs.pil.pixel_values"], atol=1e-5, rtol=0)
    scores = matrix(official, "pickscore", prompts)
    torch.testing.assert_close(scores, expected["outputs.pil.scores"], atol=2e-4, rtol=0)
    torch.testing.assert_close(scores.softmax(-1), expected["outputs.pil.probs"], atol=1e-5, rtol=0)


def test_tokens(reward, vectors):
    tokens = reward.tokenizer(vectors[1], padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    assert torch.equal(tokens.input_ids, tensors("pickscore")["inputs.token_ids"])


def test_a_prompt_that_loses_its_end_is_named(reward):
    with pytest.warns(UserWarning, match=r"PickScore reads 77 tokens and ignores the end of 1 prompt\(s\).*'a cat"):
        reward(torch.rand(2, 3, 32, 32), ["a dog", "a cat " * 80])


def test_text_features(reward, vectors):
    expected, prompts = vectors
    torch.testing.assert_close(reward._text_features(prompts), expected["text_features"], atol=1e-5, rtol=1e-5)


def test_a_prompt_is_encoded_once(reward, vectors):
    pixels, calls = torch.rand(3, 3, 32, 32), []
    forward = reward.clip.text_model.forward
    reward.clip.text_model.forward = lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs)
    for _ in range(3):
        reward(pixels, ["something new", "something new", "something else"])
    del reward.clip.text_model.forward
    assert len(calls) == 1


def test_the_cache_serves_training_after_evaluation(reward):
    with torch.inference_mode():
        reward(torch.rand(1, 3, 32, 32), ["seen in validation first"])
    pixels = torch.rand(1, 3, 32, 32, requires_grad=True)
    reward(pixels, ["seen in validation first"]).sum().backward()
    assert pixels.grad.abs().max() > 0


def test_no_such_folder():
    with pytest.raises(FileNotFoundError, match=r"no CLIP\w+ can be loaded from '/nowhere'; give a local folder"):
        PickScore("/nowhere", "/nowhere")
