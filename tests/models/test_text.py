import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from rlr.models import Frozen, Guidance, LoRA, StableDiffusion
from rlr.models.text import PromptEncoder

LONG = "a red circle and a blue square and a green circle on the red background"
Folder = Callable[..., Path]


@pytest.fixture
def text(random_sd: Folder) -> PromptEncoder:
    return StableDiffusion(str(random_sd()), Frozen(), cache=3).text


@pytest.fixture
def calls(text: PromptEncoder) -> list[Tensor]:
    """Returns the embeddings that the text encoder is asked for from now on."""
    result: list[Tensor] = []
    text.encoder.register_forward_hook(lambda module, args, output: result.append(output[0]))
    return result


def test_embeddings_are_those_of_the_pipeline(random_sd: Folder, text: PromptEncoder) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(random_sd())
    for prompt in ("", "a red circle", "Two  Blue squares!", LONG):
        with warnings.catch_warnings(action="ignore"):
            expected = pipeline.encode_prompt(prompt, "cpu", 1, False)[0]
            torch.testing.assert_close(text([prompt]), expected, rtol=0, atol=1e-5)


def test_the_encoder_is_asked_once_per_prompt(text: PromptEncoder, calls: list[Tensor]) -> None:
    first = text(["a", "the red", "a"])
    assert len(calls) == 2
    again = text(["the red", "a"])
    assert len(calls) == 2
    assert torch.equal(again, first[[1, 0]])


def test_the_prompt_not_asked_for_longest_is_forgotten(text: PromptEncoder, calls: list[Tensor]) -> None:
    text(["a", "b", "c"])
    text(["a"])
    text(["d"])
    assert len(calls) == 4
    text(["a", "c", "d"])
    assert len(calls) == 4
    text(["b"])
    assert len(calls) == 5
    assert len(text(["a", "b", "c", "d", "e"])) == 5


def test_an_embedding_is_the_same_to_the_bit_in_any_batch(text: PromptEncoder) -> None:
    together = text(["a", "the red", "two circles on"])
    fresh = copy.deepcopy(text).float()
    assert torch.equal(fresh(["the red"])[0], together[1])


def test_moving_or_casting_forgets(random_sd: Folder) -> None:
    model = Guidance(StableDiffusion(str(random_sd()), Frozen()))
    assert model.encode(["a"]).tensors["text"].dtype == torch.float32
    model.double()
    assert model.encode(["a"]).tensors["text"].dtype == torch.float64


def test_embeddings_met_first_without_autograd_or_in_autocast_serve_training(random_sd: Folder) -> None:
    model = StableDiffusion(str(random_sd()), LoRA())
    exact = model.encode(["a red"]).tensors["text"]
    model.text._cache.clear()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        model.encode(["a red"])
    condition = model.encode(["a red"])
    assert torch.equal(condition.tensors["text"], exact)
    model.denoise(torch.ones(1, *model.shape), 500, condition).sum().backward()
    assert any(weight.grad.abs().max() > 0 for weight in model.trainable.values())


def test_a_long_prompt_warns_once_and_is_counted(text: PromptEncoder) -> None:
    tokens = len(text.tokenizer(LONG).input_ids)
    assert tokens > 16
    with pytest.warns(UserWarning, match=rf"last {tokens - 16} tokens of the prompt '{LONG}' are cut off.*reads 16"):
        text([LONG])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text([LONG + " two", "a red circle"])
    assert text.truncated == 2


def test_the_warning_repeats_80_characters_of_a_prompt(text: PromptEncoder) -> None:
    prompt = "a red circle " * 400
    with pytest.warns(UserWarning, match=f"of the prompt '{prompt[:79]}…' are cut off"):
        text([prompt])


def test_a_prompt_that_just_fits_is_not_counted(text: PromptEncoder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text(["a " * 14])
    assert text.truncated == 0
    with pytest.warns(UserWarning, match="last 1 tokens"):
        text(["a " * 15])
