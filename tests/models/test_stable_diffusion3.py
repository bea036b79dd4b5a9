"""Stable Diffusion 3 against diffusers' own pipeline on random weights."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from torch import Tensor

from rlr.chain import Chain
from rlr.models import Frozen, Guidance, LoRA, Size, StableDiffusion, StableDiffusion3
from rlr.samplers import FlowSDE

Folder = Callable[..., Path]
PROMPTS = ["a red circle", "two blue squares on the green background, and more than the sixteen tokens of CLIP"]
TOKENS = 32


def build(folder: Path, **options: Any) -> StableDiffusion3:
    return StableDiffusion3(str(folder), **{"trainable": Frozen(), "tokens": TOKENS} | options)


def by_pipeline(pipeline: Any, noise: Tensor, scale: float, steps: int, size: tuple[int, int]) -> Tensor:
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": steps, "guidance_scale": scale, "max_sequence_length": TOKENS}
    height, width = size
    return pipeline(PROMPTS, latents=noise, height=height, width=width, output_type="pt", **options).images


def ours(model: StableDiffusion3, scale: float, steps: int) -> tuple[Tensor, Tensor]:
    chain = Chain(Guidance(model, scale), FlowSDE(steps, noise_level=0.0))
    noises = chain.draw([1, 2])
    with warnings.catch_warnings(action="ignore"):
        return model.decode(chain.sample(chain.encode(PROMPTS), noises).states[0]), noises[-1]


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize(
    "scheduler", [{}, {"use_dynamic_shifting": True, "base_image_seq_len": 16}], ids=["static", "dynamic"]
)
def test_images_are_those_of_the_pipeline(random_sd3: Folder, steps: int, scheduler: dict[str, Any]) -> None:
    folder, size = random_sd3(**scheduler), (24, 48)
    images, noise = ours(build(folder, size=size), 4.5, steps)
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder)
    torch.testing.assert_close(images, by_pipeline(pipeline, noise, 4.5, steps, size), rtol=0, atol=1e-4)


@pytest.mark.parametrize("change", ["shift", "prompt"])
def test_a_wrong_setting_is_seen(random_sd3: Folder, change: str) -> None:
    """The tolerance above is small enough to reject another setting."""
    images, noise = ours(build(random_sd3()), 4.5, 4)
    pipeline = StableDiffusion3Pipeline.from_pretrained(random_sd3())
    if change == "shift":
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=2.9)
    if change == "prompt":
        pipeline.text_encoder_3.shared.weight.data *= -1
    other = by_pipeline(pipeline, noise, 4.5, 4, (32, 32))
    assert (images - other).abs().max() > 1e-3


def test_a_step_is_the_schedulers(random_sd3: Folder) -> None:
    model = build(random_sd3())
    chain = Chain(model, FlowSDE(5, noise_level=0.0))
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(model.scheduler)
    scheduler.set_timesteps(5)
    x = chain.draw([3])[-1]
    condition = chain.encode(["a red circle"])
    for k, t in enumerate(range(5, 0, -1)):
        with torch.no_grad():
            denoised = chain.denoise(x, t, condition)
            velocity = (x - denoised) / chain.grid.sigmas[t]
            expected = scheduler.step(velocity, scheduler.timesteps[k], x, return_dict=False)[0]
            x = chain.transition(x, t, condition).mean
        torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)


def test_without_t5_zeros_stand_in_its_place(random_sd3: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(random_sd3(), tmp_path / "sd3")
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / part)
    model = build(folder, t5=False)
    images, noise = ours(model, 4.5, 3)
    pipeline = StableDiffusion3Pipeline.from_pretrained(random_sd3(), text_encoder_3=None, tokenizer_3=None)
    torch.testing.assert_close(images, by_pipeline(pipeline, noise, 4.5, 3, (32, 32)), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"has no readable tokenizer_3/ .it holds no vocabulary"):
        build(folder)


def test_a_prompt_that_t5_cuts_is_counted(random_sd3: Folder) -> None:
    model = build(random_sd3())
    model.encode(["a red circle"])
    assert model.text.truncated == 0
    with pytest.warns(UserWarning, match="are cut off, since the text encoder reads 32"):
        model.encode(["a red circle " * 9])
    assert model.text.truncated == 1


def test_lora_is_on_the_joint_attentions(random_sd3: Folder) -> None:
    model = build(random_sd3(), trainable=LoRA(2))
    layers = {name.split(".lora_")[0].removeprefix("transformer.transformer_blocks.") for name in model.trainable}
    projections = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj")
    # the last block has no text output
    assert layers == {f"{i}.attn.{name}" for i in (0, 1) for name in projections} | {"0.attn.to_add_out"}


def test_gradients_reach_the_lora(random_sd3: Folder) -> None:
    model = build(random_sd3(), trainable=LoRA(2))
    generator = torch.Generator().manual_seed(0)
    for weight in model.trainable.values():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    x = torch.randn(2, *model.latent_shape(model.size), generator=generator)
    model.decode(model.denoise(x, 0.5, model.encode(["a", "red"]))).square().sum().backward()
    still = {name for name, weight in model.trainable.items() if not weight.grad.abs().max() > 0}
    # the queries of the text in the last block lead to no output
    assert {name.split(".lora_")[0] for name in still} == {"transformer.transformer_blocks.1.attn.add_q_proj"}


def test_folders_of_other_models_are_refused(random_sd3: Folder, random_sd: Folder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of a StableDiffusionPipeline has no readable"):
        StableDiffusion3(str(random_sd()))
    with pytest.raises(ValueError, match="StableDiffusion"):
        StableDiffusion(str(random_sd3()))
    folder = shutil.copytree(random_sd3(), tmp_path / "sd3")
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": "FluxTransformer2DModel"}))
    with pytest.raises(
        ValueError, match="is a FluxTransformer2DModel, and a Stable Diffusion 3 has a SD3Transformer2D"
    ):
        StableDiffusion3(str(folder))


@pytest.mark.parametrize("setting", ["use_karras_sigmas", "invert_sigmas", "stochastic_sampling"])
def test_settings_that_the_grid_does_not_have_are_refused(random_sd3: Folder, tmp_path: Path, setting: str) -> None:
    folder = shutil.copytree(random_sd3(), tmp_path / "sd3")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {setting: True}))
    with pytest.raises(ValueError, match=f"scheduler_config.json sets {setting}, and StableDiffusion3 reads"):
        build(folder)


def test_sizes_fit_the_patches_and_the_positions(random_sd3: Folder) -> None:
    with pytest.raises(ValueError, match="positive multiples of 4 pixels, and 30 x 30 are not"):
        build(random_sd3(), size=30)
    with pytest.raises(ValueError, match="positions for 16 tokens a side, and 32 x 68 pixels need 17"):
        build(random_sd3(), size=(32, 68))
    model = build(random_sd3())
    assert model.size == Size(32, 32)
    assert model.latent_shape(Size(16, 24)) == (4, 8, 12)
