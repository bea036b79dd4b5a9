"""Base models from one file and from a pipeline in memory, and a user's LoRA as the start."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlr.chain import Chain
from rlr.models import Frozen, FullWeights, LoRA, OnDemand, StableDiffusion, StableDiffusion3
from rlr.models.export import ComfyUI, DiffusersLoRA, Kohya, Merged, SingleFile
from rlr.models.latent import LatentDiffusion
from rlr.samplers import DDIM

Folder = Callable[..., Path]
M = TypeVar("M", bound=LatentDiffusion)


def image(model: LatentDiffusion) -> Tensor:
    chain = Chain(model, DDIM(4))
    return model.decode(chain.sample(chain.encode(["a red circle"]), chain.draw([1])).states[0])


def shift(model: M, seed: int = 1) -> M:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.trainable.values():
        weight.data += 0.2 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def one_file(random_sd: Folder, tmp_path_factory: pytest.TempPathFactory) -> tuple[StableDiffusion, Path]:
    """A model with other weights than the random folder's, and its file."""
    folder = tmp_path_factory.mktemp("file") / "out"
    model = shift(StableDiffusion(str(random_sd()), LoRA(2)))
    SingleFile().write(model, folder)
    return model, folder / "model.safetensors"


def test_one_file_is_the_model_that_was_written(one_file: tuple[StableDiffusion, Path]) -> None:
    model, file = one_file
    for text in (None, OnDemand()):
        again = StableDiffusion(str(file), LoRA(2), text=text)
        torch.testing.assert_close(image(again), image(model), rtol=0, atol=1e-5)
    half = StableDiffusion(str(file), dtype="bfloat16")
    assert {half.unet.dtype, half.vae.dtype} == {torch.bfloat16}


def test_a_lora_on_one_file_is_trained_and_exported(one_file: tuple[StableDiffusion, Path], tmp_path: Path) -> None:
    model = shift(StableDiffusion(str(one_file[1]), LoRA(2)), 5)
    assert [file.name for file in Kohya().write(model, tmp_path / "out")] == ["lora.safetensors"]


def test_one_file_takes_its_configurations_from_a_folder(
    one_file: tuple[StableDiffusion, Path], random_sd: Folder, tmp_path: Path
) -> None:
    model, file = one_file
    alone = shutil.copy(file, tmp_path / "alone.safetensors")
    again = StableDiffusion(str(alone), config=str(random_sd()))
    torch.testing.assert_close(image(again), image(model), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="set config to a folder of its configurations and its tokenizer"):
        StableDiffusion(str(alone))


def test_files_that_cannot_be_read(one_file: tuple[StableDiffusion, Path], random_sd: Folder, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    state = load_file(one_file[1])
    for name, reason in (
        (
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
            r"its unet \(it lacks weights\)",
        ),
        ("first_stage_model.decoder.conv_in.weight", r"its vae \(it lacks weights\)"),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.weight",
            "lacks weights of the CLIPTextModel: 'final",
        ),
    ):
        save_file({key: weight for key, weight in state.items() if key != name}, file)
        with pytest.raises(ValueError, match=reason):
            StableDiffusion(str(file), config=str(random_sd()))
    file.write_bytes(one_file[1].read_bytes()[:-100])
    with pytest.raises(ValueError, match=re.escape(str(file))):
        StableDiffusion(str(file), config=str(random_sd()))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        StableDiffusion(str(tmp_path / "none.safetensors"))


def test_a_pipeline_in_memory_is_the_model_of_its_folder(random_sd: Folder, tmp_path: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(random_sd())
    model = shift(StableDiffusion.from_pipeline(pipeline, LoRA(2, alpha=3.0)))
    other = shift(StableDiffusion(str(random_sd()), LoRA(2, alpha=3.0)))
    assert torch.equal(image(model), image(other))
    assert model.unet is pipeline.unet
    # the base model is restored from the weights without the LoRA
    for exporter in (DiffusersLoRA(), Kohya(), Merged()):
        exporter.write(model, tmp_path / type(exporter).__name__)
    with model.reference():
        torch.testing.assert_close(image(model), image(StableDiffusion(str(random_sd()), Frozen())))
    with pytest.raises(
        ValueError, match="the unet of the StableDiffusionPipeline has a LoRA, and a new one is to be trained"
    ):
        StableDiffusion.from_pipeline(pipeline)


def test_full_weights_of_a_pipeline_are_compared_with_a_copy(random_sd: Folder, tmp_path: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(random_sd())
    model = StableDiffusion.from_pipeline(pipeline, FullWeights("attn2"))
    with pytest.raises(ValueError, match="the trained weights make the images of the base model"):
        Merged().write(model, tmp_path / "none")
    assert Merged().write(shift(model), tmp_path / "out")


def test_a_pipeline_of_a_transformer(random_sd3: Folder, tmp_path: Path) -> None:
    pipeline = StableDiffusion3Pipeline.from_pretrained(random_sd3())
    model = shift(StableDiffusion3.from_pipeline(pipeline, LoRA(2, alpha=3.0)))
    assert DiffusersLoRA().write(model, tmp_path / "out")
    with pytest.raises(ValueError, match="StableDiffusion3Pipeline: expected a Stable Diffusion, found no unet"):
        StableDiffusion.from_pipeline(pipeline)
    without = StableDiffusion3Pipeline.from_pretrained(random_sd3(), text_encoder_3=None, tokenizer_3=None)
    assert StableDiffusion3.from_pipeline(without).encode(["a"]).tensors["text"].isfinite().all()


@pytest.mark.parametrize("exporter", [DiffusersLoRA(), Kohya(), ComfyUI()])
def test_training_starts_with_a_lora_from_a_file(
    random_sd: Folder, tmp_path: Path, exporter: DiffusersLoRA | Kohya | ComfyUI
) -> None:
    first = shift(StableDiffusion(str(random_sd()), LoRA(3, alpha=1.5)))
    (file,) = exporter.write(first, tmp_path / "first")
    model = StableDiffusion(str(random_sd()), LoRA(start=str(file)), dtype="float32")
    start = image(model)
    torch.testing.assert_close(start, image(first), rtol=0, atol=1e-5)
    assert model.trainable.keys() == first.trainable.keys()
    shift(model, 7)
    after = image(model)
    assert (after - start).abs().max() > 0.01
    # the weights before training include the LoRA, and those after it come back
    with model.reference():
        assert torch.equal(image(model), start)
    assert torch.equal(image(model), after)
    assert DiffusersLoRA().write(model, tmp_path / "second")


def test_the_swap_of_the_start_leaves_a_graph_valid(random_sd: Folder, tmp_path: Path) -> None:
    (file,) = DiffusersLoRA().write(shift(StableDiffusion(str(random_sd()), LoRA(2))), tmp_path / "first")
    model = shift(StableDiffusion(str(random_sd()), LoRA(start=str(file))), 3)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    condition = model.encode(["a"])

    def slopes(within: bool) -> list[Tensor]:
        loss = model.denoise(x, 500, condition).square().mean()
        if within:
            with torch.no_grad(), model.reference():
                model.denoise(x, 500, condition)
        return list(torch.autograd.grad(loss, list(model.trainable.values())))

    assert all(torch.equal(one, other) for one, other in zip(slopes(False), slopes(True), strict=True))


def test_a_transformer_starts_with_a_lora_too(random_sd3: Folder, tmp_path: Path) -> None:
    first = shift(StableDiffusion3(str(random_sd3()), LoRA(2, alpha=3.0)))
    (file,) = ComfyUI().write(first, tmp_path / "first")
    model = StableDiffusion3(str(random_sd3()), LoRA(start=str(file)))
    x = torch.randn(1, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = (m.denoise(x, 0.5, m.encode(["a"])) for m in (model, first))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_a_start_that_does_not_fit(random_sd: Folder, random_sd3: Folder, tmp_path: Path) -> None:
    (file,) = ComfyUI().write(shift(StableDiffusion3(str(random_sd3()), LoRA(2))), tmp_path / "other")
    with pytest.raises(
        ValueError, match=r"expected a LoRA of a UNet2DConditionModel .* \(no name in it begins with 'unet'"
    ):
        StableDiffusion(str(random_sd()), LoRA(start=str(file)))
    with pytest.raises(ValueError, match="start decides which layers are trained; leave out targets and pattern"):
        LoRA(start="x.safetensors", pattern="attn2")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.safetensors"):
        StableDiffusion(str(random_sd()), LoRA(start=str(tmp_path / "none.safetensors")))
