from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL

from rlr.toy.data.videos import EncodedVideos
from rlr.toy.pretraining.autoencoder import Autoencoder
from rlr.toy.world.motion import parse_video
from rlr.toy.world.videos import draw_videos

SMALL = {"size": 6, "batch_size": 4, "held_out": 3}


def ready(vae, step=0, **changes):
    data = EncodedVideos(vae, **{**SMALL, **changes})
    data.setup("fit")
    data.trainer = SimpleNamespace(accumulate_grad_batches=1, world_size=1, global_step=step, global_rank=0)
    return data


def test_the_latents_are_those_of_the_rendered_frames(vae):
    table = ready(vae).training
    pixels = draw_videos([parse_video(caption) for caption in table["captions"]], 0)
    encoder = AutoencoderKL.from_pretrained(vae, torch_dtype=torch.float32).eval()
    assert table["mean"].shape == table["std"].shape == (6, 8, 4, 8, 8)
    for k, frame in ((0, 0), (5, 7)):
        posterior = encoder.encode(pixels[k, frame][None] / 127.5 - 1).latent_dist
        for name in ("mean", "std"):
            torch.testing.assert_close(
                table[name][k, frame].float(), getattr(posterior, name)[0].detach(), atol=2e-3, rtol=2e-3
            )


def test_stills_are_the_first_frames_of_the_same_clips_with_their_captions(vae):
    data = ready(vae)
    stills = data.first_frames()
    for name in ("mean", "std"):
        assert torch.equal(stills[name], data.training[name][:, :1])
    assert stills["captions"] == data.training["captions"]


@pytest.mark.parametrize(("clips", "stills"), [(4, 0), (0, 5), (4, 5)])
def test_batches_have_the_rows_and_shapes_that_are_said(vae, clips, stills):
    data = ready(vae, batch_size=clips, stills=stills)
    expected = {name: shape for name, shape in {"clips": (clips, 8), "stills": (stills, 1)}.items() if shape[0]}
    batch = next(iter(data.train_dataloader()))
    assert batch.keys() == expected.keys()
    for name, shape in expected.items():
        rows = batch[name]
        assert rows["mean"].shape == rows["std"].shape == (*shape, 4, 8, 8)
        assert rows["mean"].dtype == torch.float16
        assert len(rows["captions"]) == shape[0]


def test_validation_goes_through_the_held_out_videos_once(vae):
    data = ready(vae)
    (held_out,) = data.val_dataloader()
    assert held_out.keys() == {"clips"}
    assert held_out["clips"]["captions"] == data.validation["captions"]
    assert held_out["clips"]["mean"].shape == (3, 8, 4, 8, 8)


def test_a_batch_of_nothing_is_refused(vae):
    with pytest.raises(ValueError, match="batch_size"):
        EncodedVideos(vae, batch_size=0)


def test_training_and_validation_share_no_picture(vae):
    data = ready(vae, size=200, held_out=100)
    training, validation = (
        {parse_video(c).spec for c in table["captions"]} for table in (data.training, data.validation)
    )
    assert not training & validation


def test_a_run_that_starts_late_sees_what_an_uninterrupted_one_would(vae):
    whole = list(islice(ready(vae, stills=5).train_dataloader(), 5))
    late = list(islice(ready(vae, step=3, stills=5).train_dataloader(), 2))
    for one, other in zip(whole[3:], late, strict=True):
        for name in ("clips", "stills"):
            assert one[name]["captions"] == other[name]["captions"]
            assert torch.equal(one[name]["mean"], other[name]["mean"])


def test_what_was_rendered_is_read_from_its_file_by_a_run_of_the_same_settings_alone(vae, tmp_path, monkeypatch):
    cache = str(tmp_path / "new" / "data.pt")
    first = ready(vae, cache=cache)
    drawn = []
    monkeypatch.setattr(
        "rlr.toy.data.videos.draw_videos", lambda clips, seed: drawn.append(seed) or draw_videos(clips, seed)
    )
    again = ready(vae, cache=cache, batch_size=2, stills=3)
    assert not drawn
    for one, other in ((first.training, again.training), (first.validation, again.validation)):
        assert one["captions"] == other["captions"]
        assert torch.equal(one["mean"], other["mean"])
        assert torch.equal(one["std"], other["std"])
    ready(vae, cache=cache, seed=1)
    assert drawn == [1, 1]
    Autoencoder(channels=(8, 8, 8)).export(tmp_path / "other")
    ready(str(tmp_path / "other"), cache=cache, seed=1)
    assert len(drawn) == 4


def test_rendering_once_is_enough(vae):
    data = ready(vae)
    table = data.training
    data.setup("validate")
    assert data.training is table
