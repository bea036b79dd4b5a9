"""Videos are evaluated, written and shown as images are."""

import json
import warnings

import pytest
import torch
import yaml
from lightning.pytorch.loggers.logger import DummyLogger
from PIL import Image

from rlr.callbacks import Diversity, Evaluation, PredictionWriter, SampleGrid, show_video
from rlr.cli import main
from rlr.data import Prompts
from rlr.data.stream import PromptBatch
from rlr.estimators import FirstOrder
from rlr.evaluation import Colors, Evaluator, RewardMetric, SampleSet, parts
from rlr.evaluation.diversity import diversity
from rlr.evaluation.images import film, sheet
from rlr.evaluation.metrics import describe
from rlr.io.video import Video, read_video, write_video
from rlr.rewards import AllFrames, Brightness, Combine, EvenlySpaced, FrameReward
from tests.callbacks.every_logger import every_logger
from tests.modules.clips import FRAMES, Sparing, align_clips
from tests.modules.toy import WORDS, Level, run, weights


def data():
    return Prompts(list(WORDS), val=list(WORDS[:3]), batch_size=4)


def near(video, pixels):
    """Whether a video from a file shows these pixels, with shape (F, 3, H, W), in [0, 1]."""
    return ((video.frames / 255 - pixels).abs().mean((1, 2, 3)) < 0.03).all()


# ---------------------------------------------------------------- images of videos


def test_a_sheet_shows_evenly_spaced_frames_about_as_wide_as_high():
    shades = [Image.new("RGB", (30, 20), (k, 0, 0)) for k in range(12)]
    shown = sheet(shades, 6)
    assert shown.size == (60, 60)
    assert [shown.getpixel((x, y))[0] for y in (0, 20, 40) for x in (0, 30)] == [1, 3, 5, 7, 9, 11]
    assert sheet(shades[:1]).size == (30, 20)
    assert sheet([Image.new("RGB", (90, 10))] * 3).size == (90, 30)
    assert sheet([Image.new("RGB", (10, 90))] * 3).size == (30, 90)


def test_a_film_of_images_has_even_sides():
    images = [Image.new("RGB", (5, 4), (k, 10, 20)) for k in range(3)]
    frames = film(images)
    assert (frames.shape, frames.dtype) == ((3, 3, 4, 6), torch.uint8)
    assert frames[:, 0, :, :5].float().mean((1, 2)).tolist() == [0, 1, 2]
    assert (frames[..., 5] == 255).all()


# ---------------------------------------------------------------- loggers


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A run of two updates with all loggers at once; the folder holds what they wrote."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("logged")
        loggers = every_logger(folder, patch)
        module = align_clips()
        with warnings.catch_warnings():
            # what a logger cannot take it says in a warning
            warnings.filterwarnings("error", module="wandb|tensorboard|torch.utils.tensorboard")
            run(
                module,
                data(),
                2,
                callbacks=[Evaluation(displays=[SampleGrid(2)])],
                logger=loggers,
                default_root_dir=folder,
            )
        loggers[0].experiment.finish()
        yield folder, read_video(folder / "samples" / "000002.mp4")


def test_the_grid_plays_the_samples_before_and_after(logged):
    folder, video = logged
    assert video.fps == 8
    assert len(video.frames) == FRAMES
    still = Image.open(folder / "samples" / "000002.png")
    assert tuple(video.frames.shape[2:]) == (still.height + still.height % 2, still.width + still.width % 2)
    # each frame of the toy is brighter than the one before, and the words above stand still
    light = video.frames.float().mean((1, 2, 3)).tolist()
    assert light == sorted(light)
    assert light[-1] > light[0] + 1
    # the last rows border on the samples, and compression carries a little of these over
    assert (video.frames[:, :, :28].float().std(0) < 1).all()


def test_the_picture_is_the_middle_frame(logged):
    folder, video = logged
    still = torch.frombuffer(bytearray(Image.open(folder / "samples" / "000002.png").tobytes()), dtype=torch.uint8)
    shown = Image.open(folder / "samples" / "000002.png")
    still = still.view(shown.height, shown.width, 3).permute(2, 0, 1).float()
    distances = [(frame[:, : shown.height, : shown.width] - still).abs().mean() for frame in video.frames.float()]
    assert distances.index(min(distances)) == FRAMES // 2


def test_wandb_offline_plays_it(logged):
    folder, video = logged
    (path,) = (folder / "wandb").glob("offline-run-*/files/media/videos/media/samples_*.mp4")
    assert torch.equal(read_video(path).frames, video.frames)


def test_csv_has_it_beside(logged):
    folder, _ = logged
    path = folder / "table" / "version_0" / "media" / "samples_000002.mp4"
    assert path.read_bytes() == (folder / "samples" / "000002.mp4").read_bytes()


def test_tensorboard_shows_a_sheet(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, video = logged
    events = EventAccumulator(str(folder / "board" / "version_0"), {"images": 0}).Reload()
    (image,) = events.Images("media/samples")
    height, width = video.frames.shape[2:]
    assert image.width * image.height == FRAMES * width * height
    assert image.step == 2


def test_a_logger_of_another_kind_is_passed_over_and_can_be_taught():
    class Mine(DummyLogger):
        def __init__(self):
            super().__init__()
            self.shown = []

    logger, video = Mine(), Video(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), 8)
    show_video(logger, "samples", video, 0)
    show_video.register(Mine, lambda logger, name, video, step: logger.shown.append((name, video.fps, step)))
    show_video(logger, "samples", video, 3)
    assert logger.shown == [("samples", 8, 3)]


def test_training_is_as_without(tmp_path):
    alone, watched = align_clips(), align_clips()
    run(alone, data(), 2)
    metrics = [FrameReward(Level()), Diversity()]
    evaluation = Evaluation(metrics=metrics, displays=[SampleGrid(1)], every=1, samples=2)
    run(watched, data(), 2, callbacks=[evaluation], default_root_dir=tmp_path)
    assert torch.equal(weights(alone), weights(watched))


# ---------------------------------------------------------------- evaluation


def test_the_score_of_a_clip_is_the_mean_over_its_frames(tmp_path):
    """Though an update sees one of them, drawn at random."""
    evaluation = Evaluation(metrics=[FrameReward(Level()), Diversity()], samples=2)
    module = align_clips()
    run(module, data(), 2, callbacks=[evaluation], default_root_dir=tmp_path)
    found = {m.label: m for m in evaluation.results.sets["Prompts"]}
    whole = Evaluator(SampleSet(WORDS[:3], 2), [RewardMetric(FrameReward(Level(), AllFrames()))])
    torch.testing.assert_close(found["Level"].scores, whole.evaluate(module.chain).values["Level"])
    torch.testing.assert_close(found["Level"].base, whole.evaluate(align_clips().chain).values["Level"])
    assert found["diversity"].scores.shape == (3, 1)
    assert (found["diversity"].scores > 0).all()


def test_the_base_is_scored_once(tmp_path):
    # the first run decodes one video and then two, and the second the first alone
    counts = []
    for _ in range(2):
        module, evaluation = align_clips(), Evaluation()
        run(module, data(), 1, callbacks=[evaluation], default_root_dir=tmp_path)
        counts.append(module.chain.model.decoded)
    assert counts[1] == counts[0] - FRAMES


def test_diversity_of_clips_is_that_of_their_frames():
    pixels = torch.rand(2, 3, FRAMES, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    still = pixels[:, :, :1].expand_as(pixels)
    torch.testing.assert_close(diversity(still), diversity(pixels[:, :, 0]))
    one, other = pixels[0, 0], pixels[0, 1]
    expected = (Colors()(one) - Colors()(other)).square().sum(1).mean().sqrt()
    torch.testing.assert_close(diversity(torch.stack([one, other])[None])[0], expected)


def test_a_combination_within_or_without_is_measured_by_parts():
    inner = Combine({"a": Level(), "b": Brightness()}, {"a": 1.0, "b": 1.0})
    outer = Combine(
        {k: FrameReward(r, EvenlySpaced(2)) for k, r in (("a", Level()), ("b", Brightness()))}, {"a": 1.0, "b": 1.0}
    )
    for reward in (FrameReward(inner, EvenlySpaced(2)), outer):
        found = parts(reward)
        assert [part.label for part in found] == ["Level", "Brightness"]
        assert all(isinstance(part, FrameReward) and part.choice == EvenlySpaced(2) for part in found)


def test_scores_on_other_frames_are_other_scores():
    assert describe(FrameReward(Level(), EvenlySpaced(2))) == "Level, EvenlySpaced(count=2)"
    assert describe(FrameReward(Level(), EvenlySpaced(3))) != describe(FrameReward(Level(), EvenlySpaced(2)))


def test_a_reward_of_pictures_is_refused_before_anything_is_sampled(tmp_path):
    with pytest.raises(
        ValueError, match="Level scores images, and the model makes videos; wrap the reward in FrameReward"
    ):
        run(align_clips(), data(), 1, callbacks=[Evaluation(metrics=[Level()])], default_root_dir=tmp_path)


# ---------------------------------------------------------------- prediction


CONFIG = {
    "model": {
        "class_path": "VideoAlignment",
        "init_args": {
            "model": "tests.modules.clips.Sparing",
            "sampler": {"class_path": "DDIM", "init_args": {"steps": 2}},
            "reward": {"class_path": "FrameReward", "init_args": {"reward": "Brightness", "choice": "RandomFrame"}},
            "estimator": {"class_path": "FirstOrder", "init_args": {"steps": 1}},
            "memory": {"offload_activations": True},
        },
    },
    "data": {"class_path": "Prompts", "init_args": {"train": list(WORDS), "predict": list(WORDS[:3]), "batch_size": 2}},
    "trainer": {"accelerator": "cpu", "max_epochs": -1, "max_steps": 1, "enable_progress_bar": False},
}


def test_the_command_line_trains_and_predicts_clips(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips.yaml").write_text(yaml.safe_dump(CONFIG))
    cli = main(["fit", "--config=clips.yaml", "--trainer.default_root_dir=out"])
    assert type(cli.model).__name__ == "VideoAlignment"
    assert cli.trainer.global_step == 1
    aligned = main(
        ["predict", "--config=clips.yaml", "--trainer.default_root_dir=out", "--ckpt_path=out/last.ckpt"]
    ).model
    folder = tmp_path / "out" / "predictions" / "last"
    names = sorted(path.name for path in folder.iterdir())
    assert names == [*(f"{k:05d}.{kind}" for k in range(3) for kind in ("json", "mp4")), "origin.json"]
    again = aligned.generate(PromptBatch(list(WORDS[:3]), [0, 1, 2]))
    for k in range(3):
        video, facts = read_video(folder / f"{k:05d}.mp4"), json.loads((folder / f"{k:05d}.json").read_text())
        assert near(video, again.samples[k])
        assert video.fps == 8
        assert facts["prompt"] == WORDS[k]
        assert facts["reward"] == pytest.approx(again.samples[k].mean().item(), rel=1e-4)


def test_odd_clips_are_refused_in_a_sentence(tmp_path):
    module = align_clips(estimator=FirstOrder(1))
    prediction = module.generate(PromptBatch(["one"], [0]))
    odd = prediction._replace(samples=prediction.samples[..., :15])
    writer = PredictionWriter(str(tmp_path))
    with pytest.raises(ValueError, match=r"00000\.mp4: expected an even width.*15 × 16 pixels; crop or resize"):
        writer.write_on_batch_end(run(module, data(), 0), module, odd, None, None, 0, 0)
    assert list(tmp_path.iterdir()) == []
    write_video(tmp_path / "even.mp4", prediction.samples[0], prediction.fps)
    assert near(read_video(tmp_path / "even.mp4"), prediction.samples[0])


def test_the_toy_decodes_only_what_it_is_asked_for():
    model, x = Sparing(), torch.randn(1, 2, FRAMES, 2, 2)
    assert torch.equal(model.decode(x, [2]), model.decode(x)[:, [2]])


def test_each_sample_of_the_latest_drawing_has_its_own_file(logged):
    folder, _ = logged
    content = json.loads((folder / "samples" / "last" / "samples.json").read_text())
    assert (content["suffix"], content["update"]) == (".mp4", 2)
    names = [name for card in content["samples"] for name in card["files"].values()]
    assert len(names) == len(set(names)) == 4
    for name in names:
        assert len(read_video(folder / "samples" / "last" / f"{name}.mp4").frames) == FRAMES
