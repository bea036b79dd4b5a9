"""Exports of a Stable Diffusion, read by plain diffusers and peft."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from rlr.chain import Chain
from rlr.models import Frozen, FullWeights, Guidance, LoRA, OnCPU, OnDemand, StableDiffusion, TextPlacement, Trainable
from rlr.models.export import DiffusersLoRA, Exporter, Merged, OfficialVideoCrafter, PeftAdapter
from rlr.models.latent import LatentDiffusion
from rlr.samplers import DDIM
from tests.modules.toy import AffineModel

Folder = Callable[..., Path]
PROMPTS = ["a red circle", "two blue squares"]


def trained(folder: Path, trainable: Trainable, scale: float = 0.2) -> StableDiffusion:
    model, generator = StableDiffusion(str(folder), trainable), torch.Generator().manual_seed(11)
    for weight in model.trainable.values():
        weight.data += scale * torch.randn(weight.shape, generator=generator)
    return model


def by_pipeline(pipeline: StableDiffusionPipeline, noise: Tensor) -> Tensor:
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 6, "guidance_scale": 3.0, "output_type": "pt"}
    return pipeline(PROMPTS, latents=noise, **options).images


def images(model: StableDiffusion) -> tuple[Tensor, Tensor]:
    chain = Chain(Guidance(model, 3.0), DDIM(6, eta=0.0))
    noises = chain.draw([1, 2])
    return model.decode(chain.sample(chain.encode(PROMPTS), noises).states[0]), noises[-1]


def lora_pipeline(base: Path, folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    pipeline.load_lora_weights(folder)
    return pipeline


def peft_pipeline(base: Path, folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    PeftModel.from_pretrained(pipeline.unet, str(folder))
    return pipeline


def merged_pipeline(base: Path, folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder)


@pytest.mark.parametrize(
    ("exporter", "load", "trainable"),
    [
        (DiffusersLoRA(), lora_pipeline, LoRA(2)),
        (DiffusersLoRA(), lora_pipeline, LoRA(2, alpha=3.0)),
        (DiffusersLoRA(), lora_pipeline, LoRA(2, alpha=3.0, pattern=r"down.*attn2|mid_block")),
        (PeftAdapter(), peft_pipeline, LoRA(2, alpha=3.0, pattern=r"down.*attn2|mid_block")),
        (Merged(), merged_pipeline, LoRA(2, alpha=3.0)),
        (Merged(), merged_pipeline, FullWeights("attn2")),
    ],
    ids=["lora", "alpha", "pattern", "peft", "merged", "merged-full"],
)
def test_an_export_makes_the_same_images_in_diffusers(
    random_sd: Folder, tmp_path: Path, exporter: Exporter, load: Any, trainable: Trainable
) -> None:
    model = trained(random_sd(), trainable)
    files = exporter.write(Guidance(model, 3.0), tmp_path / "out")
    expected, noise = images(model)
    assert (by_pipeline(StableDiffusionPipeline.from_pretrained(random_sd()), noise) - expected).abs().max() > 0.05
    torch.testing.assert_close(by_pipeline(load(random_sd(), tmp_path / "out"), noise), expected, rtol=0, atol=1e-4)
    assert files
    assert all(file.is_file() for file in files)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_merged_unet_has_the_names_of_diffusers(random_sd: Folder, tmp_path: Path) -> None:
    model = trained(random_sd(), FullWeights(), 0.01)
    Merged().write(model, tmp_path / "out")
    loaded = UNet2DConditionModel.from_pretrained(tmp_path / "out" / "unet").state_dict()
    assert loaded.keys() == model.unet.state_dict().keys()
    assert all(torch.equal(loaded[name], value) for name, value in model.unet.state_dict().items())


@pytest.mark.parametrize("exporter", [DiffusersLoRA(), PeftAdapter(), Merged()])
def test_weights_that_change_nothing_are_refused(random_sd: Folder, tmp_path: Path, exporter: Exporter) -> None:
    with pytest.raises(ValueError, match="the trained weights make the images of the base model"):
        exporter.write(StableDiffusion(str(random_sd()), LoRA()), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class Forgetful(DiffusersLoRA):
    """Sabotage: every second layer is left out of the file."""

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        weights = [weight for name, weight in model.unet.named_parameters() if ".lora_B." in name]
        kept = [weight.data for weight in weights]
        for weight in weights[::2]:
            weight.data = torch.zeros_like(weight)
        super().save(model, folder)
        for weight, data in zip(weights, kept, strict=True):
            weight.data = data


def test_an_export_that_makes_other_images_is_refused(random_sd: Folder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"makes other images than the model in memory .*nothing was written"):
        Forgetful().write(trained(random_sd(), LoRA(2)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_there_stay(random_sd: Folder, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists and is not empty; name a new folder"):
        DiffusersLoRA().write(trained(random_sd(), LoRA(2)), tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("exporter", "trainable", "fact"),
    [
        (DiffusersLoRA(), FullWeights("attn2"), "DiffusersLoRA writes a LoRA, .* are FullWeights; use Merged"),
        (PeftAdapter(), Frozen(), "PeftAdapter writes a LoRA, .* are Frozen"),
        (OfficialVideoCrafter(), LoRA(2), "OfficialVideoCrafter writes a VideoCrafter, and the model is a StableDiff"),
    ],
)
def test_a_format_that_does_not_fit_is_refused(
    random_sd: Folder, tmp_path: Path, exporter: Exporter, trainable: Trainable, fact: str
) -> None:
    with pytest.raises(ValueError, match=fact):
        exporter.write(StableDiffusion(str(random_sd()), trainable), tmp_path / "out")


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exports a LatentDiffusion, and the model is a AffineModel"):
        Merged().write(AffineModel(), tmp_path / "out")


@pytest.mark.parametrize("placement", [OnCPU, OnDemand])
@pytest.mark.parametrize("exporter", [DiffusersLoRA(), Merged()])
def test_an_export_does_not_depend_on_where_the_text_encoder_is(
    random_sd: Folder, tmp_path: Path, exporter: Exporter, placement: type[TextPlacement]
) -> None:
    written = []
    for k, text in enumerate((None, placement())):
        model = StableDiffusion(str(random_sd()), LoRA(2), text=text)
        for weight in model.trainable.values():
            weight.data += 0.1
        files = exporter.write(model, tmp_path / str(k))
        written.append({file.relative_to(tmp_path / str(k)): file for file in files})
    assert written[0].keys() == written[1].keys()
    for name, file in written[0].items():
        if file.suffix == ".safetensors":
            one, other = load_file(file), load_file(written[1][name])
            assert one.keys() == other.keys()
            assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_other_types_are_exported_and_compared(random_sd: Folder, tmp_path: Path, dtype: str) -> None:
    model = StableDiffusion(str(random_sd()), LoRA(2), dtype=dtype)
    for weight in model.trainable.values():
        weight.data += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    assert DiffusersLoRA().write(model, tmp_path / "lora")
