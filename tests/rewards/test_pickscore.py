"""PickScore against numbers that other people's implementation gave.

``tests/vectors/pickscore`` holds a random CLIP model and tokenizer in transformers' layout, and the scores and pixel
gradients of VADER's differentiable PickScore (one picture and prompt at a time) on it, with transformers 4.46.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from rlr.rewards import PickScore
from rlr.rewards.pickscore import resize_and_crop
from tests.rewards.folder import FOLDER


@pytest.fixture(scope="module")
def reward():
    return PickScore(str(FOLDER))


@pytest.fixture(scope="module")
def vectors():
    return load_file(FOLDER / "vectors.safetensors"), json.loads((FOLDER / "prompts.json").read_text())


@pytest.mark.parametrize("shape", ["square", "wide", "tall"])
def test_scores_and_gradients(reward, vectors, shape):
    tensors, prompts = vectors
    x = tensors[f"pixels_{shape}"].clone().requires_grad_()
    scores = reward((x / 2 + 0.5).clamp(0, 1), prompts)
    torch.testing.assert_close(scores, tensors[f"scores_{shape}"], atol=1e-4, rtol=1e-5)
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    expected = tensors[f"gradients_{shape}"]
    assert (gradient - expected).norm() < 1e-4 * expected.norm()


def test_text_features(reward, vectors):
    tensors, prompts = vectors
    torch.testing.assert_close(reward._text_features(prompts), tensors["text_features"], atol=1e-5, rtol=1e-5)


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


def test_crop_is_of_the_centre():
    wide = torch.zeros(1, 3, 4, 11)
    wide[..., 3:7] = 1  # the surplus is 7, of which 7 // 2 = 3 go to the left
    assert resize_and_crop(wide, 4).min() == 1


def test_no_such_folder():
    with pytest.raises(FileNotFoundError, match=r"no CLIP\w+ can be loaded from '/nowhere'; give a local folder"):
        PickScore("/nowhere", "/nowhere")
