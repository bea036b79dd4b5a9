"""Wan: two transformers, a causal autoencoder, grids of two schedulers, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline

from rlr.chain import Chain
from rlr.models import Frozen, Guidance, Size, Switched, Wan
from rlr.samplers import FlowSDE
from tests.models.families import PROMPTS, TOKENS
from tests.models.random_wan import UNIPC, write_random_wan

SIZE = {"size": (16, 32), "frames": 5}


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_wan(tmp_path_factory.mktemp("experts"), experts=2)


def build(folder: Path, **options: Any) -> Wan:
    return Wan(str(folder), **{"trainable": Frozen(), "tokens": TOKENS, **SIZE} | options)


def changed(folder: Path, target: Path, file: str, **settings: Any) -> Path:
    """Returns a copy of a folder with other settings in one of its files."""
    copy = shutil.copytree(folder, target / "wan")
    content = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(content | settings))
    return copy


def test_each_transformer_computes_on_its_side_of_the_boundary(experts: Path) -> None:
    model = build(experts)
    x, condition = torch.ones(1, *model.latent_shape(model.size)), model.encode(PROMPTS[:1])
    with torch.no_grad():
        before = {time: model.denoise(x, time, condition) for time in (1.0, 0.875, 0.874, 0.1)}
        for weight in model.transformer_2.parameters():
            weight += 0.1
        moved = {time: not torch.equal(model.denoise(x, time, condition), found) for time, found in before.items()}
    assert moved == {1.0: False, 0.875: False, 0.874: True, 0.1: True}


def test_two_scales_are_those_of_the_pipeline(experts: Path) -> None:
    model = build(experts)
    chain = Chain(Guidance(model, Switched(4.0, 2.0, 0.875), batched=False), FlowSDE(3, noise_level=0.0))
    noises = chain.draw([1, 2])
    videos = model.decode(chain.sample(chain.encode(PROMPTS), noises).states[0])
    pipeline = WanPipeline.from_pretrained(experts)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        list(PROMPTS),
        latents=noises[-1],
        height=16,
        width=32,
        num_frames=5,
        num_inference_steps=3,
        guidance_scale=4.0,
        guidance_scale_2=2.0,
        max_sequence_length=TOKENS,
        output_type="pt",
    ).frames
    torch.testing.assert_close(videos, expected, rtol=0, atol=1e-4)


def test_two_transformers_need_a_boundary(experts: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a boundary_ratio, since it states two transformers, found none"):
        build(changed(experts, tmp_path, "model_index.json", boundary_ratio=None))
    (tmp_path / "wan" / "model_index.json").unlink()
    with pytest.raises(ValueError, match=r"expected a model_index.json"):
        build(tmp_path / "wan")


@pytest.mark.parametrize("patch", [None, 2])
def test_chosen_frames_are_those_of_the_whole_video(tmp_path: Path, patch: int | None) -> None:
    model = build(write_random_wan(tmp_path, patch=patch), size=(32, 32), vae_slicing=True)
    x = torch.randn(2, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    whole, decoded = model.decode(x), []
    decode = model.vae.decode
    model.vae.decode = lambda z: decoded.append(z.shape[2]) or decode(z)
    assert whole.shape == (2, 5, 3, 32, 32)
    for frames, latents in (([0], 1), ([2, 1], 2), ([4], 3), ([3], 3)):
        assert torch.equal(model.decode(x, frames), whole[:, frames])
        assert set(decoded) == {latents}
        decoded.clear()


def test_tiles_differ_near_their_seams_alone(random_wan: Callable[..., Path]) -> None:
    model = build(random_wan(), size=(16, 64), vae_tiling=True)
    model.vae.enable_tiling(32, 32, 24, 24)
    x = torch.randn(1, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0)).requires_grad_()
    tiled = model.decode(x)
    model.vae.disable_tiling()
    with torch.no_grad():
        whole = model.decode(x)
    assert torch.allclose(tiled[..., :10], whole[..., :10], atol=0.05)
    assert not torch.equal(tiled, whole)
    (gradient,) = torch.autograd.grad(tiled.sum(), x)
    assert (gradient.abs().amax((0, 1, 2, 3)) > 0).all()


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_the_grid_of_unipc_is_that_of_its_scheduler(tmp_path: Path, steps: int) -> None:
    model = build(write_random_wan(tmp_path, unipc=True))
    scheduler = UniPCMultistepScheduler(**UNIPC)
    scheduler.set_timesteps(steps)
    found = model.schedule(model.size).grid(steps).sigmas
    # the scheduler subtracts 1e-6 from the first level, to avoid a logarithm of 0
    torch.testing.assert_close(torch.tensor(found).flip(0), scheduler.sigmas, rtol=0, atol=2e-6)


def test_a_scheduler_of_noise_is_refused(tmp_path: Path) -> None:
    folder = write_random_wan(tmp_path / "source", unipc=True)
    with pytest.raises(ValueError, match="flow_prediction, found True and epsilon"):
        build(changed(folder, tmp_path, "scheduler/scheduler_config.json", prediction_type="epsilon"))


def test_sizes_and_frames_fit(random_wan: Callable[..., Path]) -> None:
    model = build(random_wan())
    assert model.size == Size(16, 32, 5, 16.0)
    assert model.latent_shape(Size(20, 24, 9)) == (4, 5, 10, 12)
    with pytest.raises(ValueError, match="expected a multiple of 2 plus 1 for this Wan, got 4"):
        build(random_wan(), frames=4)
    with pytest.raises(ValueError, match="positive multiples of 4 pixels, and 18 x 32 are not"):
        build(random_wan(), size=(18, 32))


def test_prompts_are_cleaned(random_wan: Callable[..., Path]) -> None:
    model = build(random_wan())
    found, expected = (
        model.encode([text]).tensors["text"] for text in ("a  red &amp; blue\n circle", "a red & blue circle")
    )
    assert torch.equal(found, expected)
    assert found.shape == (1, TOKENS, 24)
