from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL
from lightning.pytorch import seed_everything

from rlr.data.clips import EncodedClips
from rlr.modules.pretraining.autoencoder import Autoencoder
from rlr.world.clips import draw_clips
from rlr.world.motion import parse_clip

SMALL = {"size": 6, "batch_size": 4, "held_out": 3}


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    seed_everything(0)
    Autoencoder(channels=(8, 8, 8)).export(folder)
    return str(folder)


def ready(vae, step=0, **changes):
    data = EncodedClips(vae, **{**SMALL, **changes})
    data.setup("fit")
    data.trainer = SimpleNamespace(accumulate_grad_batches=1, world_size=1, global_step=step, global_rank=0)
    return data


def test_the_latents_are_those_of_the_rendered_frames(vae):
    table = ready(vae).training
    pixels = draw_clips([parse_clip(caption) for caption in table["captions"]], 0)
    encoder = AutoencoderKL.from_pretrained(vae, torch_dtype=torch.float32).eval()
    assert table["mean"].shape == table["std"].shape == (6, 8, 4, 8, 8)
    for k, frame in ((0, 0), (5, 7)):
        posterior = encoder.encode(pixels[k, frame][None] / 127.5 - 1).latent_dist
        for name in ("mean", "std"):
            torch.testing.assert_close(
                table[name][k, frame].float(), getattr(posterior, name)[0].detach(), atol=2e-3, rtol=2e-3
            )


def test_stills_are_the_frames_of_the_same_clips_with_their_captions(vae):
    clips, stills = ready(vae).training, ready(vae, stills=True).training
    assert torch.equal(stills["mean"], clips["mean"].flatten(0, 1)[:, None])
    assert stills["captions"] == [caption for caption in clips["captions"] for _ in range(8)]


def test_batches_have_the_shapes_that_are_said(vae):
    for stills, frames in ((False, 8), (True, 1)):
        data = ready(vae, stills=stills)
        batch = next(iter(data.train_dataloader()))
        assert batch["mean"].shape == batch["std"].shape == (4, frames, 4, 8, 8)
        assert batch["mean"].dtype == torch.float16
        assert len(batch["captions"]) == 4
        (held_out,) = data.val_dataloader()
        assert held_out["mean"].shape == (3, 8, 4, 8, 8)


def test_training_and_validation_share_no_picture(vae):
    data = ready(vae, size=200, held_out=100)
    training, validation = (
        {parse_clip(c).spec for c in table["captions"]} for table in (data.training, data.validation)
    )
    assert not training & validation


def test_a_run_that_starts_late_sees_what_an_uninterrupted_one_would(vae):
    whole = list(islice(ready(vae).train_dataloader(), 5))
    late = list(islice(ready(vae, step=3).train_dataloader(), 2))
    for one, other in zip(whole[3:], late, strict=True):
        assert one["captions"] == other["captions"]
        assert torch.equal(one["mean"], other["mean"])


def test_rendering_once_is_enough(vae):
    data = ready(vae)
    table = data.training
    data.setup("validate")
    assert data.training is table
