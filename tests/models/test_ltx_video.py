"""LTX-Video: frames a second, decoders with a time, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LTXPipeline

from rlr.chain import Chain
from rlr.models import Frozen, Guidance, LTXVideo, Size
from rlr.models.tokens import from_tokens, to_tokens
from rlr.samplers import FlowSDE
from tests.models.families import PROMPTS, TOKENS

Folder = Callable[..., Path]


def build(folder: Path, **options: Any) -> LTXVideo:
    return LTXVideo(str(folder), **{"trainable": Frozen(), "tokens": TOKENS, "size": (32, 32), "frames": 5} | options)


def sample(model: LTXVideo) -> tuple[torch.Tensor, torch.Tensor]:
    chain = Chain(Guidance(model, 3.0), FlowSDE(2, noise_level=0.0))
    noises = chain.draw([1, 2])
    return model.decode(chain.sample(chain.encode(PROMPTS), noises).states[0]), model.for_pipeline(noises[-1])


@pytest.mark.parametrize(("timed", "fps"), [(True, 25.0), (False, 12.0)])
def test_videos_are_those_of_the_pipeline(random_ltx: Folder, timed: bool, fps: float) -> None:
    folder = random_ltx(timed=timed)
    videos, latents = sample(build(folder, fps=fps))
    pipeline = LTXPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    options = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2, "max_sequence_length": TOKENS}
    expected, other = (
        pipeline(
            list(PROMPTS), latents=latents, guidance_scale=3.0, frame_rate=rate, output_type="pt", **options
        ).frames
        for rate in (fps, 2 * fps)
    )
    torch.testing.assert_close(videos, expected, rtol=0, atol=1e-4)
    assert (videos - other).abs().max() > 1e-3


def test_tokens_are_those_of_the_pipeline_and_invertible() -> None:
    x = torch.arange(2.0 * 3 * 2 * 4 * 5).reshape(2, 3, 2, 4, 5)
    assert torch.equal(to_tokens(x), LTXPipeline._pack_latents(x))
    assert torch.equal(from_tokens(to_tokens(x), 2, 4, 5), x)


def test_padding_is_not_read(random_ltx: Folder) -> None:
    model = build(random_ltx())
    condition = model.encode(PROMPTS)
    mask = condition.mask("text")
    assert mask is not None
    assert mask.shape == (2, TOKENS)
    x = torch.zeros(2, *model.latent_shape(model.size))
    with torch.no_grad():
        expected = model.denoise(x, 0.9, condition)
        condition.tensors["text"][~mask] = 7.0
        torch.testing.assert_close(model.denoise(x, 0.9, condition), expected, rtol=0, atol=1e-6)


def test_chosen_frames_are_those_of_the_whole_video(random_ltx: Folder) -> None:
    model = build(random_ltx())
    x = torch.randn(2, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    whole = model.decode(x)
    assert whole.shape == (2, 5, 3, 32, 32)
    assert torch.equal(model.decode(x, [3, 0]), whole[:, [3, 0]])


def test_a_decoder_with_noise_is_refused(random_ltx: Folder) -> None:
    with pytest.raises(ValueError, match="sets decoder_inject_noise: expected an autoencoder that decodes a latent to"):
        build(random_ltx(noisy=True))


def test_patches_are_refused(random_ltx: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(random_ltx(), tmp_path / "ltx")
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"patch_size": 2}))
    with pytest.raises(ValueError, match=r"expected tokens of single latent pixels, .* found patches of .2, 1."):
        build(folder)


def test_sizes_and_frames_fit(random_ltx: Folder) -> None:
    model = build(random_ltx())
    assert model.size == Size(32, 32, 5, 25.0)
    assert model.latent_shape(Size(24, 40, 9)) == (4, 5, 3, 5)
    with pytest.raises(ValueError, match="expected a multiple of 2 plus 1 for this LTXVideo, got 4"):
        build(random_ltx(), frames=4)
