"""CogVideoX: its schedule, positions, latent frames before the video, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXPipeline

from rlr.chain import Chain
from rlr.models import CogVideoX, Frozen, Guidance, Size
from rlr.models.prediction import velocity
from rlr.samplers import DDIM
from tests.models.families import PROMPTS

Folder = Callable[..., Path]
FIVE = {"rotary": True, "snr_shift_scale": 1.0}
"""The 5B model, with rotations as positions."""
NEWER = FIVE | {"patches": 2}
"""CogVideoX 1.5."""


def build(folder: Path, **options: Any) -> CogVideoX:
    return CogVideoX(str(folder), **{"trainable": Frozen(), "size": (16, 32), "frames": 5} | options)


@pytest.mark.parametrize("size", [(16, 32), (32, 24)])
def test_positions_of_the_5b_model_are_those_of_the_pipeline(random_cogvideox: Folder, size: tuple[int, int]) -> None:
    folder = random_cogvideox(**FIVE)
    model = build(folder, size=size)
    chain = Chain(Guidance(model, 4.0), DDIM(2, eta=0.0))
    noises = chain.draw([1, 2])
    videos = model.decode(chain.sample(chain.encode(PROMPTS), noises).states[0])
    pipeline = CogVideoXPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    height, width = size
    options = {"height": height, "width": width, "num_frames": 5, "num_inference_steps": 2, "max_sequence_length": 96}
    latents = model.for_pipeline(noises[-1])
    expected = pipeline(list(PROMPTS), latents=latents, guidance_scale=4.0, output_type="pt", **options).frames
    torch.testing.assert_close(videos, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, FIVE])
@pytest.mark.parametrize("steps", [1, 4, 50])
def test_the_schedule_is_the_schedulers(random_cogvideox: Folder, settings: dict[str, Any], steps: int) -> None:
    model = build(random_cogvideox(**settings))
    scheduler = CogVideoXDDIMScheduler.from_config(model.scheduler)
    scheduler.set_timesteps(steps)
    grid = model.schedule(model.size).grid(steps)
    assert list(grid.times[:0:-1]) == scheduler.timesteps.tolist()
    levels = scheduler.alphas_cumprod[scheduler.timesteps].sqrt()
    torch.testing.assert_close(torch.tensor(grid.alphas[:0:-1], dtype=torch.float64), levels, rtol=0, atol=1e-12)
    # all noise at first, and none in the sample
    assert (grid.alphas[-1], grid.sigmas[-1], grid.sigmas[0]) == (0, 1, 0)
    assert model.prediction is velocity


def test_the_shift_of_the_schedule_adds_noise(random_cogvideox: Folder) -> None:
    shifted, plain = (build(random_cogvideox(**s)).noise_schedule for s in ({}, {"snr_shift_scale": 1.0}))
    assert shifted.levels(300)[1] > plain.levels(300)[1] + 0.1


@pytest.mark.parametrize("settings", [{}, NEWER])
def test_chosen_frames_are_those_of_the_whole_video(random_cogvideox: Folder, settings: dict[str, Any]) -> None:
    model = build(random_cogvideox(**settings), frames=13, vae_slicing=True)
    x = torch.randn(2, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    assert x.shape[2] == (8 if settings else 7)
    whole, decoded = model.decode(x), []
    decode = model.vae.decode
    model.vae.decode = lambda z: decoded.append(z.shape[2]) or decode(z)
    assert whole.shape == (2, 13, 3, 16, 32)
    for frames, latents in (([0], 3), ([4, 2], 3), ([5], 5), ([8], 5), ([9], 7), ([12], 7)):
        assert torch.equal(model.decode(x, frames), whole[:, frames])
        assert set(decoded) == {latents}
        decoded.clear()


def test_the_first_latent_frame_of_an_even_number_is_dropped(random_cogvideox: Folder) -> None:
    model = build(random_cogvideox(**NEWER))
    x = torch.randn(1, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    assert x.shape[2] == 4
    before = model.decode(x)
    x[:, :, 0] += 1
    assert torch.equal(model.decode(x), before)
    x[:, :, 1] += 1
    assert not torch.equal(model.decode(x), before)


def test_sizes_and_frames_fit(random_cogvideox: Folder) -> None:
    model = build(random_cogvideox())
    assert model.size == Size(16, 32, 5, 8.0)
    assert model.latent_shape(Size(20, 24, 9)) == (4, 5, 10, 12)
    for frames in (0, 3, 4):
        with pytest.raises(ValueError, match=f"expected a multiple of 4 plus 1 for this CogVideoX, got {frames}"):
            build(random_cogvideox(), frames=frames)
    with pytest.raises(ValueError, match="has positions for 20 x 20 tokens, and 16 x 84 pixels need 4 x 21"):
        build(random_cogvideox(**NEWER), size=(16, 84))


def test_a_model_of_images_to_video_is_refused(random_cogvideox: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(random_cogvideox(), tmp_path / "i2v")
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ofs_embed_dim": 16}))
    with pytest.raises(ValueError, match=r"lacks weights|expected a model of text alone"):
        build(folder)
