"""The text-to-video model begins as a model of its frames, and learns from stills without touching what joins them."""

import pickle
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn

from rlr.models import Frozen
from rlr.models.videocrafter.network import build_unet, call
from rlr.toy.data.videos import EncodedVideos
from rlr.toy.models import TinyVideo
from rlr.toy.pretraining.video import FPS, VideoDenoiser, still, temporal, zeroed
from tests.toy.pretraining.small_video import CONFIG, shrink


@pytest.fixture
def module(vae, monkeypatch):
    shrink(monkeypatch)
    seed_everything(0)
    return VideoDenoiser(vae)


def network(identity=True):
    """A denoiser in float64 whose frames are joined by random layers, or by the identity."""
    torch.manual_seed(0)
    unet = build_unet(CONFIG).double().eval().requires_grad_(False)
    for layer in temporal(unet):
        for weight in layer.parameters():
            nn.init.normal_(weight, std=0.2)
    return zeroed(unet) if identity else unet


def inputs(frames=5):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, frames, 8, 8, generator=generator, dtype=torch.float64)
    text = torch.randn(2, 6, 16, generator=generator, dtype=torch.float64)
    return x, torch.tensor([900, 40]), text, torch.tensor([8, 8])


def one_by_one(unet, x, *rest):
    return torch.cat([call(unet, x[:, :, k : k + 1], *rest) for k in range(x.shape[2])], 2)


def test_layers_that_join_frames_are_found():
    names = {type(layer).__name__ for layer in temporal(network())}
    assert names == {"TransformerTemporalModel", "TemporalConvLayer"}


def test_a_zeroed_network_predicts_each_frame_of_a_clip_alone():
    unet, given = network(), inputs()
    torch.testing.assert_close(call(unet, *given), one_by_one(unet, *given), atol=1e-10, rtol=0)
    joined = network(identity=False)
    assert (call(joined, *given) - one_by_one(joined, *given)).abs().max() > 1e-2


def test_a_still_network_is_the_zeroed_one():
    joined, given, frame = network(identity=False), inputs(), inputs(1)
    with still(joined):
        clip, picture = call(joined, *given), call(joined, *frame)
    torch.testing.assert_close(clip, call(network(), *given), atol=1e-10, rtol=0)
    torch.testing.assert_close(picture, call(network(), *frame), atol=1e-10, rtol=0)
    assert (picture - call(joined, *frame)).abs().max() > 1e-2


def test_after_the_context_the_network_is_whole_again():
    unet, given = network(identity=False), inputs()
    before = call(unet, *given)
    with pytest.raises(RuntimeError, match="in between"), still(unet):
        raise RuntimeError("in between")
    assert torch.equal(call(unet, *given), before)


# ---------------------------------------------------------------- training


def run(module, vae, folder=None, steps=3, **data):
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, EncodedVideos(vae, **{"size": 6, "batch_size": 3, "held_out": 2, **data}))
    if folder:
        trainer.save_checkpoint(folder / "last.ckpt")
    return trainer


def joining(networks):
    """Names and copies of the weights that join frames."""
    parts = {id(w) for layer in temporal(networks["unet"]) for w in layer.parameters()}
    return {name: w.clone() for name, w in networks.named_parameters() if id(w) in parts}


@pytest.mark.parametrize("stills", [True, False])
def test_stills_leave_what_joins_frames_untouched(module, vae, stills):
    before, all_before = joining(module.networks), {n: w.clone() for n, w in module.networks.named_parameters()}
    run(module, vae, **({"batch_size": 0, "stills": 3} if stills else {}))
    for networks in (module.networks, module.average):
        same = [torch.equal(weight, before[name]) for name, weight in joining(networks).items()]
        assert all(same) if stills else not any(same[-2:])
    others = [n for n in all_before if n not in before and "resblocks.1" not in n]
    moved = [n for n in others if not torch.equal(dict(module.networks.named_parameters())[n], all_before[n])]
    assert len(moved) > 0.9 * len(others)


def test_clips_start_from_the_average_of_stills(module, vae, tmp_path):
    run(module, vae, tmp_path, batch_size=0, stills=3)
    inflated = VideoDenoiser(vae, start=str(tmp_path / "last.ckpt"))
    for networks in (inflated.networks, inflated.average):
        for name, weight in networks.state_dict().items():
            assert torch.equal(weight, module.average.state_dict()[name])


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("kind", ["zip", "old", "raw"])
def test_a_start_runs_no_code(vae, tmp_path, monkeypatch, kind):
    shrink(monkeypatch)
    start, mark = tmp_path / "start.ckpt", tmp_path / "ran"
    hostile = Hostile(mark)
    if kind == "raw":
        start.write_bytes(pickle.dumps(hostile))
    else:
        content = {"state_dict": {}, "hyper_parameters": hostile}
        torch.save(content, start, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ValueError, match=r"start\.ckpt holds Python objects besides tensors"):
        VideoDenoiser(vae, start=str(start))
    assert not mark.exists()
    # the law can fail: unpickling the object itself leaves the mark
    pickle.loads(pickle.dumps(hostile))
    assert mark.exists()


def test_a_start_without_the_averaged_weights_is_named(vae, tmp_path, monkeypatch):
    shrink(monkeypatch)
    start = tmp_path / "start.ckpt"
    torch.save({"state_dict": {"networks.unet.x": torch.ones(1)}}, start)
    with pytest.raises(ValueError, match=r"start\.ckpt does not fit the networks of VideoDenoiser: .* is missing"):
        VideoDenoiser(vae, start=str(start))


CAPTIONS = ["a red circle growing", "a blue cross moving left"]


def loss(module, predict, mean, seed=0):
    """The training loss on latents without spread, with ``predict`` in the network's place."""
    module.predict, generator = predict, torch.Generator().manual_seed(seed)
    return module.loss(module.networks, rows(mean), generator)


def rows(mean):
    return {"mean": mean, "std": torch.zeros_like(mean), "captions": CAPTIONS}


def test_the_losses_of_clips_and_of_stills_are_added(module):
    clips, stills = (torch.randn(2, frames, 4, 8, 8, generator=torch.Generator().manual_seed(0)) for frames in (8, 1))
    logged, noise = {}, torch.Generator().manual_seed(3)
    module.log_dict, module.noise = logged.update, lambda: noise
    module.eval()
    total = module.training_step({"clips": rows(clips), "stills": rows(stills)}, 0)
    again = torch.Generator().manual_seed(3)
    parts = [module.loss(module.networks, rows(part), again) for part in (clips, stills)]
    assert logged == {"train/clips": parts[0], "train/stills": parts[1]}
    assert total == parts[0] + parts[1]
    assert parts[1] > 0


def test_validation_measures_the_average_the_same_way_every_time(module):
    mean, seen = torch.randn(2, 8, 4, 8, 8, generator=torch.Generator().manual_seed(0)), []
    module.log = lambda name, value, **_: seen.append((name, value.item()))
    module.networks.requires_grad_(False)
    for _ in range(2):
        module.validation_step({"clips": rows(mean)}, 0)
        for weight in module.networks.parameters():
            weight.add_(1.0)
    assert seen[0] == seen[1]
    assert seen[0][0] == "validation/clips"
    for weight in module.average.parameters():
        weight.add_(0.1)
    module.validation_step({"clips": rows(mean)}, 0)
    assert seen[2] != seen[0]


def test_the_loss_is_zero_for_the_true_velocity_alone(module):
    """From x = a s z + b e and the clean z, the velocity is a e − b s z with e = (x − a s z) / b."""
    mean = torch.randn(2, 8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    clean = mean.transpose(1, 2) * module.scale

    def velocity(scale):
        def predict(networks, x, times, captions):
            abar, s = (row[times].view(-1, 1, 1, 1, 1) for row in (module.abar, scale))
            a, b = abar.sqrt(), (1 - abar).sqrt()
            return a * (x - a * s * clean) / b - b * s * clean

        return predict

    for seed in range(5):
        assert loss(module, velocity(module.rescale), mean, seed) < 1e-8
    assert max(loss(module, velocity(torch.ones(1000)), mean, seed) for seed in range(5)) > 1e-3


def test_latents_are_rescaled_as_in_videocrafter(module):
    assert module.rescale[0] == 1
    torch.testing.assert_close(module.rescale[400:], torch.full((600,), 0.7))
    assert (module.rescale[:400].diff() < 0).all()
    assert len(module.rescale) == len(module.abar) == 1000


@pytest.mark.parametrize(("frames", "median"), [(1, 500), (4, 667), (8, 739)])
def test_clips_are_seen_at_more_noise_than_pictures(module, frames, median):
    """A share u is moved to s u / (1 + (s-1) u), and 1/2 to s / (1 + s), with s the root of the number of frames."""
    times = module.times(20_000, frames, torch.Generator().manual_seed(0))
    assert times.min() >= 0
    assert times.max() <= 999
    assert times.float().median() == pytest.approx(median, abs=8)


def test_weights_are_one_at_high_noise_and_bounded_by_gamma_at_low(module):
    snr = module.abar * module.rescale**2 / (1 - module.abar)
    weight = module.weight(torch.arange(1000))
    assert (weight * (snr + 1)).max() == pytest.approx(5.0, rel=1e-4)
    assert (weight[snr < 4] == 1).all()


@pytest.mark.parametrize(("drop", "seen"), [(0.0, CAPTIONS), (1.0, ["", ""])])
def test_captions_are_dropped_as_often_as_said(module, drop, seen):
    module.drop = drop
    stated = []
    loss(module, lambda networks, x, times, captions: stated.extend(captions) or x, torch.zeros(2, 8, 4, 8, 8))
    assert stated == seen


def test_the_network_is_stated_the_rate_and_the_captions(module):
    """A video's prediction depends on both, and on its own caption alone."""
    x, times = torch.randn(2, 4, 8, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500, 500])
    with torch.no_grad():
        said, other = (module.predict(module.average, x, times, texts) for texts in (CAPTIONS, [CAPTIONS[0], ""]))
        text = module.average["text"](module.tokenizer(CAPTIONS))
        at_rate, slower = (call(module.average["unet"], x, times, text, torch.full((2,), f)) for f in (FPS, 4))
    assert torch.equal(said, at_rate)
    assert not torch.allclose(said, slower)
    torch.testing.assert_close(said[0], other[0])
    assert not torch.allclose(said[1], other[1])


def test_what_is_exported_reads_back_and_predicts_the_same(module, vae, tmp_path):
    """From the velocity v of x = a s z + b e the clean latent is z = (a x − b v) / s."""
    run(module, vae, steps=2)
    module.export(tmp_path)
    model = TinyVideo(str(tmp_path), trainable=Frozen())
    assert (model.latent_shape(model.size), model.size.frames, model.size.fps) == ((4, 8, 8, 8), 8, FPS)
    x, time = torch.randn(2, 4, 8, 8, 8, generator=torch.Generator().manual_seed(0)), 600
    abar, s = module.abar[time], module.rescale[time]
    with torch.no_grad():
        # what is written is in half precision
        v = module.predict(module.average.half().float(), x, torch.tensor([time, time]), CAPTIONS)
        found = model.denoise(x, time, model.encode(CAPTIONS))
    torch.testing.assert_close(found, (abar.sqrt() * x - (1 - abar).sqrt() * v) / s, atol=1e-4, rtol=1e-4)
