"""A video is a function of seed, prompt and number: of no batch, rank or interruption."""

import inspect
import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml

import rlr.cli.vbench.prediction
from rlr.callbacks.vbench import sample_set
from rlr.cli.vbench.generation import Source, config_of
from rlr.cli.vbench.prediction import MissingVideos, Unscored, VideoWriter
from rlr.data import PromptData
from rlr.evaluation.vbench.metric import write
from rlr.evaluation.vbench.naming import VideoName, prompt_number
from rlr.evaluation.vbench.videos import PromptSet
from rlr.io.video import read_video, write_video
from rlr.modules import VideoAlignment
from rlr.modules.optimization import Optimization
from rlr.rewards.base import Reward
from rlr.samplers import DDIM
from tests.evaluation.vbench.toy import PROMPTS, Clips, write_info
from tests.modules.toy import Replay

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*")

ROOT = Path(__file__).parents[3]


def align(reward=None):
    module = VideoAlignment(Clips(), DDIM(2, eta=1.0), reward or Unscored(), Replay(1), Optimization(lr=0.3), seed=3)
    torch.nn.init.constant_(module.chain.model.shift, 0.5)
    return module


NAMES = [VideoName(prompt, i) for prompt in PROMPTS for i in range(3)]


def sampled(module, batch=9, prompts=PROMPTS):
    """The pixels of three videos of each prompt by name."""
    samples = sample_set(PromptSet({prompt: PROMPTS[prompt] for prompt in prompts}, 3), module.seed, batch)
    return {
        VideoName(prompt, row % 3): pixels
        for batch in samples.batches(module.chain)
        for row, prompt, pixels in zip(*batch, strict=True)
    }


def test_videos_depend_neither_on_the_batch_nor_on_other_prompts():
    whole = sampled(align())
    assert set(whole) == set(NAMES)
    for batch, prompts in ((1, PROMPTS), (2, list(PROMPTS)[::-1]), (4, list(PROMPTS)[1:])):
        for name, pixels in sampled(align(), batch, prompts).items():
            # the last elements of a tensor are computed one at a time, and round differently
            torch.testing.assert_close(pixels, whole[name], atol=1e-6, rtol=0)
    assert len({pixels.mean().item() for pixels in whole.values()}) == 9


def test_a_pixel_becomes_a_square(tmp_path):
    # greys: colors have half the resolution of brightness, and are smoothed on the way back
    pixels = torch.rand(3, 1, 4, 6, generator=torch.Generator().manual_seed(0)).expand(3, 3, 4, 6)
    write(tmp_path / "a.mp4", pixels, 8, enlarge=4)
    frames = read_video(tmp_path / "a.mp4").frames
    assert frames.shape == (3, 3, 16, 24)
    blocks = torch.nn.functional.avg_pool2d(frames / 255, 4)
    torch.testing.assert_close(blocks, pixels, atol=0.05, rtol=0)


def test_an_image_is_no_video(tmp_path):
    with pytest.raises(
        ValueError, match=r"VBench judges videos, and the model makes samples of shape \(3, 8, 8\); use a t"
    ):
        write(tmp_path / "a.mp4", torch.zeros(3, 8, 8), 8)


def test_no_reward_is_needed():
    assert torch.equal(Unscored()(torch.rand(2, 5, 3, 8, 8), ["a", "b"]), torch.zeros(2))
    assert issubclass(Unscored, Reward)


class Place:
    """A trainer that says where it is."""

    def __init__(self, rank, world):
        self.global_rank, self.world_size = rank, world


def missing(info, folder, rank=0, world=1, **settings):
    data = MissingVideos(str(folder), tuple(names(PROMPTS)), str(info), evaluation_samples=3, **settings)
    data.trainer, data.finished = Place(rank, world), VideoWriter().finished(folder, data)
    return [number for batch in data.predict_dataloader() for number in batch.indices]


def number(name):
    return 3 * prompt_number(name.prompt) + name.number


def names(prompts):
    return dict.fromkeys(name for dimensions in prompts.values() for name in dimensions)


@pytest.fixture
def info(tmp_path):
    return write_info(tmp_path / "info.json")


@pytest.mark.parametrize("world", [1, 2, 4, 20])
def test_ranks_share_the_set(info, tmp_path, world):
    shares = [missing(info, tmp_path, rank, world) for rank in range(world)]
    together = [video for share in shares for video in share]
    assert sorted(together) == sorted(map(number, NAMES))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_video_that_another_rank_has_begun_with_moves_no_share(info, tmp_path):
    """Ranks start at different times: what the first has written must not change who makes the rest."""
    before = missing(info, tmp_path, 1, 2)
    (tmp_path / NAMES[0].file).touch()
    assert missing(info, tmp_path, 1, 2) == before
    assert number(NAMES[0]) not in missing(info, tmp_path, 0, 2, batch_size=1)


def test_a_video_that_is_half_written_is_missing(info, tmp_path):
    (tmp_path / f"{NAMES[0].file}.123.part").touch()
    assert len(missing(info, tmp_path)) == 9


def test_the_data_are_prompts_of_vbench(info, tmp_path):
    assert issubclass(MissingVideos, PromptData)
    with pytest.raises(ValueError, match="MissingVideos: expected enlarge >= 1, found 0"):
        missing(info, tmp_path, enlarge=0)


def make(trained, info, out, *overrides, samples=3, batch=4, base=False, **further):
    checkpoint = trained / "last.ckpt"
    data = {"folder": str(out / "videos"), "dimensions": list(names(PROMPTS)), "path": str(info)}
    data |= {"evaluation_samples": samples, "batch_size": batch, "fps": None, "enlarge": 1, **further}
    return Source(config_of(checkpoint), None if base else checkpoint, overrides).sample(data, out)


def contents(out):
    return {path.name: path.read_bytes() for path in (out / "videos").glob("*.mp4")}


@pytest.fixture(scope="module")
def uninterrupted(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert make(trained, write_info(out / "info.json"), out)
    return contents(out)


def test_the_whole_set_is_made_of_the_trained_weights(trained, uninterrupted, info, tmp_path):
    assert set(uninterrupted) == {name.file for name in NAMES}
    # the reward of the config fails on these prompts: it was not asked
    make(trained, info, tmp_path, base=True)
    assert all(contents(tmp_path)[name] != content for name, content in uninterrupted.items())
    (tmp_path / "one.mp4").write_bytes(uninterrupted["a cat-0.mp4"])
    video = read_video(tmp_path / "one.mp4")
    assert (video.frames.shape, video.fps) == ((5, 3, 8, 8), 4.0)


def test_the_data_of_the_config_have_no_say():
    assert {"folder", "dimensions", "path", "evaluation_samples", "batch_size", "fps", "enlarge"} == set(
        inspect.signature(MissingVideos).parameters
    )


@pytest.mark.parametrize(("samples", "batch"), [(1, 4), (3, 1), (4, 9)])
def test_neither_batch_nor_number_of_samples_matters(trained, uninterrupted, info, tmp_path, samples, batch):
    make(trained, info, tmp_path, samples=samples, batch=batch)
    made = contents(tmp_path)
    assert len(made) == 3 * samples
    assert all(made[name] == content for name, content in uninterrupted.items() if name in made)


def test_two_processes_make_what_one_makes(trained, uninterrupted, info, tmp_path):
    assert make(trained, info, tmp_path, "--trainer.devices=2", "--trainer.strategy=ddp_fork")
    assert contents(tmp_path) == uninterrupted


def deadly(trained, info, out, after):
    torch.set_num_threads(1)  # a forked process has none of its parent's threads

    def write_some(path, *args):
        if len(list(path.parent.glob("*.mp4"))) == after:
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, *args)

    rlr.cli.vbench.prediction.write = write_some
    make(trained, info, out, batch=1)


def test_a_killed_run_goes_on_where_it_stopped(trained, uninterrupted, info, tmp_path):
    child = multiprocessing.get_context("fork").Process(target=deadly, args=(trained, info, tmp_path, 4))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len(contents(tmp_path)) == 4
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "videos").glob("*.mp4")}
    make(trained, info, tmp_path)
    assert contents(tmp_path) == uninterrupted
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_a_whole_set_is_left_alone(trained, info, tmp_path, monkeypatch):
    make(trained, info, tmp_path)
    monkeypatch.setattr("rlr.cli.vbench.prediction.write", lambda *args: pytest.fail("nothing is missing"))
    make(trained, info, tmp_path)


@pytest.mark.parametrize(
    ("change", "stated"),
    [
        (
            {"overrides": ["--model.init_args.seed=1"]},
            "were made with another seed; set another --out, or delete the f",
        ),
        ({"overrides": ["--model.init_args.sampler.init_args.eta=0.5"]}, "were made with another sampler; set"),
        ({"enlarge": 2}, "were made with another enlarge; set"),
        ({"fps": 12.0}, "were made with another fps; set"),
    ],
)
def test_videos_of_two_models_are_not_mixed(trained, info, tmp_path, capsys, change, stated):
    make(trained, info, tmp_path, samples=1)
    before = contents(tmp_path)
    with pytest.raises(SystemExit):
        make(trained, info, tmp_path, *change.pop("overrides", []), **change)
    assert stated in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_videos_of_two_checkpoints_are_not_mixed(trained, info, tmp_path, capsys):
    make(trained, info, tmp_path, samples=1)
    with pytest.raises(SystemExit):
        make(trained, info, tmp_path, samples=1, base=True)
    assert "were made with another checkpoint" in capsys.readouterr().err


def test_videos_of_an_unknown_model_are_not_added_to(trained, info, tmp_path, capsys):
    write_video(tmp_path / "videos" / "a cat-0.mp4", torch.zeros(3, 3, 8, 8), 8)
    with pytest.raises(SystemExit):
        make(trained, info, tmp_path)
    assert "holds samples, and no origin.json that says of what; set another --out" in capsys.readouterr().err


def test_what_videos_are_made_with_is_noted(trained, info, tmp_path):
    make(trained, info, tmp_path, samples=1)
    noted = json.loads((tmp_path / "videos" / "origin.json").read_text())
    assert noted["sampler"]["init_args"]["steps"] == 2
    assert len(noted["checkpoint"]) == 64


def test_the_config_is_that_of_the_fit_beside_the_checkpoint(trained):
    saved = yaml.safe_load(config_of(trained / "last.ckpt").read_text())
    assert saved["model"]["class_path"] == "rlr.VideoAlignment"
    assert set(saved) == {"seed_everything", "model", "data", "trainer"}


def test_a_checkpoint_without_a_config(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*none.ckpt \(looked for at"):
        config_of(tmp_path / "none.ckpt")
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(ValueError, match=r"found no config.yaml; name the folder of a run, or set --config FILE"):
        config_of(tmp_path / "last.ckpt")


def test_a_shipped_config_is_sampled_from(info, random_vc, tmp_path, monkeypatch):
    """Its reward, within another, and its data give way."""
    monkeypatch.chdir(ROOT)
    data = {"folder": str(tmp_path / "videos"), "dimensions": ["background_consistency"], "path": str(info)}
    data |= {"evaluation_samples": 1, "batch_size": 1, "fps": 8.0, "enlarge": 2}
    path = f"--model.init_args.model.init_args.path={random_vc}"
    assert Source(ROOT / "configs" / "video" / "tiny_rlr.yaml", None, [path]).sample(data, tmp_path)
    assert read_video(tmp_path / "videos" / "an alley, at night-0.mp4").frames.shape == (4, 3, 32, 32)
