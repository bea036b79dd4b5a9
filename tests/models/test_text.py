import copy
import gc
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from rlr.models import Frozen, Guidance, LoRA, OnCPU, OnDemand, StableDiffusion, TextPlacement, WithModel
from rlr.models.text import CLIPPrompts

LONG = "a red circle and a blue square and a green circle on the red background"
Folder = Callable[..., Path]


def embed(text: CLIPPrompts, prompts: list[str]) -> Tensor:
    return text(prompts).tensors["text"]


@pytest.fixture
def text(random_sd: Folder) -> CLIPPrompts:
    return StableDiffusion(str(random_sd()), Frozen(), text=WithModel(memory=3)).text


@pytest.fixture
def calls(text: CLIPPrompts) -> list[Tensor]:
    """Returns the embeddings that the text encoder is asked for from now on."""
    result: list[Tensor] = []
    text.encoder.register_forward_hook(lambda module, args, output: result.append(output[0]))
    return result


def test_embeddings_are_those_of_the_pipeline(random_sd: Folder, text: CLIPPrompts) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(random_sd())
    for prompt in ("", "a red circle", "Two  Blue squares!", LONG):
        with warnings.catch_warnings(action="ignore"):
            expected = pipeline.encode_prompt(prompt, "cpu", 1, False)[0]
            torch.testing.assert_close(embed(text, [prompt]), expected, rtol=0, atol=1e-5)


def test_the_encoder_is_asked_once_per_prompt(text: CLIPPrompts, calls: list[Tensor]) -> None:
    first = embed(text, ["a", "the red", "a"])
    assert len(calls) == 2
    again = embed(text, ["the red", "a"])
    assert len(calls) == 2
    assert torch.equal(again, first[[1, 0]])


def test_the_prompt_not_asked_for_longest_is_forgotten(text: CLIPPrompts, calls: list[Tensor]) -> None:
    text(["a", "b", "c"])
    text(["a"])
    text(["d"])
    assert len(calls) == 4
    text(["a", "c", "d"])
    assert len(calls) == 4
    text(["b"])
    assert len(calls) == 5
    assert len(embed(text, ["a", "b", "c", "d", "e"])) == 5


def test_an_embedding_is_the_same_to_the_bit_in_any_batch(text: CLIPPrompts) -> None:
    together = embed(text, ["a", "the red", "two circles on"])
    fresh = copy.deepcopy(text).float()
    assert torch.equal(embed(fresh, ["the red"])[0], together[1])


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
    model.denoise(torch.ones(1, *model.latent_shape(model.size)), 500, condition).sum().backward()
    assert any(weight.grad.abs().max() > 0 for weight in model.trainable.values())


def test_a_long_prompt_warns_once_and_is_counted(text: CLIPPrompts) -> None:
    tokens = len(text.tokenizer(LONG).input_ids)
    assert tokens > 16
    with pytest.warns(UserWarning, match=rf"last {tokens - 16} tokens of the prompt '{LONG}' are cut off.*reads 16"):
        text([LONG])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text([LONG + " two", "a red circle"])
    assert text.truncated == 2


def test_the_warning_repeats_80_characters_of_a_prompt(text: CLIPPrompts) -> None:
    prompt = "a red circle " * 400
    with pytest.warns(UserWarning, match=f"of the prompt '{prompt[:79]}…' are cut off"):
        text([prompt])


def test_a_prompt_that_just_fits_is_not_counted(text: CLIPPrompts) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text(["a " * 14])
    assert text.truncated == 0
    with pytest.warns(UserWarning, match="last 1 tokens"):
        text(["a " * 15])


PLACEMENTS = [WithModel, OnCPU, OnDemand]


@pytest.mark.parametrize("kind", PLACEMENTS)
@pytest.mark.parametrize("stored", [False, True])
def test_embeddings_are_the_same_to_the_bit_wherever_the_encoder_is(
    random_sd: Folder, tmp_path: Path, kind: type[TextPlacement], stored: bool
) -> None:
    expected = StableDiffusion(str(random_sd()), Frozen()).encode(["a red", "", LONG]).tensors["text"]
    for _ in range(2):
        placement = kind(folder=str(tmp_path) if stored else None)
        found = StableDiffusion(str(random_sd()), Frozen(), text=placement).encode(["a red", "", LONG]).tensors["text"]
        assert torch.equal(found, expected)
    assert len(list(tmp_path.rglob("*.safetensors"))) == (3 if stored else 0)


def test_only_an_encoder_with_the_model_is_a_part_of_it(random_sd: Folder) -> None:
    parts = [
        {name for name, _ in StableDiffusion(str(random_sd()), Frozen(), text=kind()).named_parameters()}
        for kind in PLACEMENTS
    ]
    assert any(name.startswith("text.") for name in parts[0])
    assert parts[1] == parts[2] == {name for name in parts[0] if not name.startswith("text.")}


def test_an_encoder_on_the_cpu_stays_there_and_its_embeddings_follow_the_model(random_sd: Folder) -> None:
    model = StableDiffusion(str(random_sd()), Frozen(), text=OnCPU()).to("meta")
    (encoder,) = model.text.outside
    assert {weight.device.type for weight in encoder.parameters()} == {"cpu"}
    assert model.encode(["a red"]).tensors["text"].device.type == "meta"


def test_stored_embeddings_need_no_encoder(random_sd: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> StableDiffusion:
        return StableDiffusion(str(random_sd()), Frozen(), text=OnDemand(folder=str(tmp_path)))

    expected = build().encode(["a red", "two circles"]).tensors["text"]
    model = build()
    monkeypatch.setattr(model.text, "load", lambda: pytest.fail("the text encoder was loaded"))
    assert torch.equal(model.encode(["two circles", "a red"]).tensors["text"], expected[[1, 0]])


def test_an_encoder_on_demand_is_loaded_once_a_call_and_freed(random_sd: Folder) -> None:
    model = StableDiffusion(str(random_sd()), Frozen(), text=OnDemand())
    load, alive = model.text.load, []

    def counted() -> object:
        encoder = load()
        alive.append(weakref.ref(encoder))
        return encoder

    model.text.load = counted
    model.encode(["a", "b", "c"])
    assert len(alive) == 1
    model.encode(["b", "c"])
    assert len(alive) == 1
    gc.collect()
    assert alive[0]() is None


def test_embeddings_of_another_model_or_type_are_not_taken(random_sd: Folder, tmp_path: Path) -> None:
    placement = OnDemand(folder=str(tmp_path))
    settings = [("epsilon", "float32"), ("v_prediction", "float32"), ("epsilon", "bfloat16")]
    for prediction, dtype in settings:
        StableDiffusion(str(random_sd(prediction=prediction)), Frozen(), dtype=dtype, text=placement).encode(["a"])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3


@pytest.mark.parametrize("damage", [b"", b"half of it"])
def test_a_damaged_file_is_written_again(random_sd: Folder, tmp_path: Path, damage: bytes) -> None:
    expected = StableDiffusion(str(random_sd()), Frozen(), text=OnCPU(folder=str(tmp_path))).encode(["a"])
    (file,) = tmp_path.rglob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(damage)
    found = StableDiffusion(str(random_sd()), Frozen(), text=OnCPU(folder=str(tmp_path))).encode(["a"])
    assert torch.equal(found.tensors["text"], expected.tensors["text"])
    assert file.read_bytes() == whole
