"""The process around VBench: what it receives, what is kept, and how failures are reported. The stand-in takes VBench's place."""

import json
import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rlr.evaluation.vbench.dimensions import SIX, TEMPORAL_FLICKERING
from rlr.evaluation.vbench.inspection import inspect
from rlr.evaluation.vbench.scoring import Judge, package
from rlr.evaluation.vbench.videos import AnyVideos, Entry, PromptSet
from rlr.io.hub import checksum
from rlr.io.video import write_video
from tests.evaluation.vbench.toy import moving, write_clips

LIGHT = {"a cat": ("subject_consistency", "imaging_quality"), "A cat": ("background_consistency", "imaging_quality")}
"""Dimensions that small frames are enough for."""


@pytest.fixture
def clips(tmp_path):
    return write_clips(tmp_path / "clips", tuple(LIGHT), 3, side=16)


@pytest.fixture
def judge(fake, files, clips, tmp_path):
    """Returns a function that judges the videos and returns the scores."""
    videos = PromptSet(LIGHT, 3)

    def run(judge=None, out=tmp_path / "out", **settings):
        judge = judge or Judge(files)
        return judge.score(videos.judged, videos.entries(clips), out, **settings)

    return run


def noted(fake):
    return [json.loads(line) for line in fake.read_text().splitlines()]


def test_scores_are_those_of_vbench(judge):
    # numbers 0, 1, 2 make 0.25, 0.35, 0.45
    scores = judge()
    assert list(scores) == ["subject_consistency", "background_consistency", "imaging_quality", "temporal_flickering"]
    assert [score.value for score in scores.values()] == pytest.approx([0.35] * 4)
    assert scores["subject_consistency"].videos == {f"a cat-{i}.mp4": i / 10 + 0.25 for i in range(3)}
    assert len(scores["temporal_flickering"].videos) == 6


def test_what_vbench_is_stated(judge, fake, files, clips):
    judge(Judge(files, "cuda"))
    first, *_ = facts = noted(fake)
    assert [fact["dimension"] for fact in facts] == [
        *("subject_consistency", "background_consistency", "imaging_quality", "temporal_flickering")
    ]
    assert first["clips"] == [str(clips / f"a cat-{i}.mp4") for i in range(3)]
    assert facts[2]["clips"] == [str(clips / f"{prompt}-{i}.mp4") for prompt in LIGHT for i in range(3)]
    for fact in facts:
        assert fact["device"] == "cuda"
        assert fact["local"] is True
        assert fact["cache"] == str(files)
        # where the repository of DINO looks, whatever VBench has found
        assert fact["dino"] == str(files / "dino_model" / "dino_vitbase16_pretrain.pth")


@pytest.mark.parametrize(
    ("seen", "gpu", "given"), [(None, 2, "2"), ("4,GPU-a,7", 1, "GPU-a"), ("4,5", None, "4,5"), (None, None, None)]
)
def test_the_gpu_is_the_only_one(judge, fake, files, monkeypatch, seen, gpu, given):
    if seen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    judge(Judge(files, "cuda", gpu))
    assert {fact["gpus"] for fact in noted(fake)} == {given}


def test_pickles_are_trusted_in_one_dimension_only(fake, files, tmp_path):
    folder = write_clips(tmp_path / "large", ["a cat"], 1, side=128)
    videos = AnyVideos(SIX)
    Judge(files).score(videos.judged, videos.entries(folder), tmp_path / "out")
    assert {fact["dimension"]: fact["trusts"] for fact in noted(fake)} == {
        **{dimension.name: None for dimension in (*SIX, TEMPORAL_FLICKERING)},
        "motion_smoothness": "1",
    }
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ


def test_what_is_printed_goes_to_the_log(judge, tmp_path, capfd):
    judge()
    assert capfd.readouterr() == ("", "")
    log = (tmp_path / "out" / "vbench.log").read_text()
    assert "what VBench prints" in log
    assert "what its programs print" in log


def test_progress(judge):
    stated = []
    judge(say=stated.append)
    assert stated[0] == "reading 6 videos …"
    assert stated[1:] == [
        "judging subject_consistency (1 of 4) …",
        "judging background_consistency (2 of 4) …",
        "judging imaging_quality (3 of 4) …",
        "judging temporal_flickering (4 of 4) …",
    ]


def test_what_is_judged_is_not_judged_again(judge, fake):
    one = judge()
    begun = len(noted(fake))
    assert judge() == one
    assert len(noted(fake)) == begun


def test_another_clip_is_judged_again(judge, fake, clips):
    judge()
    write_video(clips / "A cat-2.mp4", moving(16, seed=9), 8)
    judge()
    again = [fact["dimension"] for fact in noted(fake)[4:]]
    # 'a cat' alone is judged on subject_consistency
    assert again == ["background_consistency", "imaging_quality", "temporal_flickering"]


def test_other_weights_judge_again(judge, fake, files):
    judge()
    (files / "pyiqa_model" / "musiq_spaq_ckpt-358bb6af.pth").write_text("others")
    judge()
    assert [fact["dimension"] for fact in noted(fake)[4:]] == ["imaging_quality"]


def test_a_spoilt_file_of_scores_is_written_again(judge, tmp_path):
    one = judge()
    (tmp_path / "out" / "imaging_quality.json").write_text('{"key": ')
    assert judge() == one


@pytest.mark.parametrize(
    ("trouble", "stated"),
    [
        ("fail", r"^VBench failed in imaging_quality \(KeyError: 'no\\nsuch key'\); see .*vbench.log$"),
        ("die", r"^VBench ended in imaging_quality with status 9; see .*vbench.log$"),
    ],
)
def test_a_failure_keeps_what_was_judged_before(judge, fake, monkeypatch, trouble, stated):
    monkeypatch.setenv("FAKE_TROUBLE", f"{trouble} imaging_quality")
    with pytest.raises(ChildProcessError, match=stated):
        judge()
    assert len(noted(fake)) == 3
    monkeypatch.delenv("FAKE_TROUBLE")
    judge()
    assert [fact["dimension"] for fact in noted(fake)[3:]] == ["imaging_quality", "temporal_flickering"]


@pytest.mark.parametrize(
    ("trouble", "stated"),
    [
        (
            "nan",
            r"VBench gives A cat-2.mp4 the imaging_quality nan, which is no score; leave the video or the dimension",
        ),
        ("skip", r"VBench passed over 'A cat-2.mp4' in imaging_quality \(1 videos in all\); replace it"),
    ],
)
def test_a_result_that_is_none(judge, monkeypatch, trouble, stated):
    monkeypatch.setenv("FAKE_TROUBLE", f"{trouble} imaging_quality")
    with pytest.raises(ValueError, match=stated):
        judge()


def test_a_package_that_does_not_import(judge, fake):
    (fake.parent / "vbench" / "__init__.py").write_text("raise ImportError('no pkg_resources')")
    stated = r"VBench failed in subject_consistency \(ImportError: no pkg_resources\); see"
    with pytest.raises(ChildProcessError, match=stated):
        judge()


def test_a_package_that_is_not_installed(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("rlr.evaluation.vbench.scoring.version", version)
    with pytest.raises(FileNotFoundError, match="the package vbench is not installed; `make install` installs it"):
        package()


def test_missing_weights_are_stated_before_a_clip_is_read(judge, files, clips):
    (files / "clip_model" / "ViT-B-32.pt").unlink()
    for clip in clips.iterdir():
        clip.write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"^background_consistency needs the weights .*clip_model/ViT-B-32.pt"):
        judge()


def entry(path, *dimensions):
    return [Entry("a", dimensions, (path,))]


def test_every_clip_is_read_and_known_by_its_bytes(clips):
    entries = PromptSet(LIGHT, 3).entries(clips)
    seen = []
    found = inspect(entries, seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert found == {path: checksum(path) for path in clips.iterdir()}


def test_a_damaged_clip_is_stated(clips):
    path = clips / "a cat-1.mp4"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"a cat-1.mp4"):
        inspect(entry(path, "imaging_quality"))
    path.write_bytes(b"no video at all")
    with pytest.raises(ValueError, match=r"a cat-1.mp4"):
        inspect(entry(path, "imaging_quality"))


def test_a_clip_that_cannot_be_judged_is_stated(tmp_path):
    write_video(tmp_path / "a-0.mp4", moving(64, 5), 8)
    stated = (
        r"^the video .*a-0.mp4 has frames of 64 × 64 pixels, and dynamic_degree needs at least 121 × 121; remove it, or"
    )
    with pytest.raises(ValueError, match=stated):
        inspect(entry(tmp_path / "a-0.mp4", "imaging_quality", "dynamic_degree"))
    write_video(tmp_path / "b-0.mp4", moving(16, 1), 8)
    with pytest.raises(ValueError, match=r"has 1 frames at 8 a second, and temporal_flickering needs 2; remove it"):
        inspect(entry(tmp_path / "b-0.mp4", "imaging_quality", "temporal_flickering"))


def test_the_process_ends_with_its_caller(judge, monkeypatch):
    """An exception in the middle leaves no process behind."""
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *args, **settings: started.append(popen(*args, **settings)) or started[0]
    )

    def stop(text):
        if "judging" in text:
            assert started[0].poll() is None
            raise KeyboardInterrupt

    monkeypatch.setenv("FAKE_TROUBLE", "hang subject_consistency")
    with pytest.raises(KeyboardInterrupt):
        judge(say=stop)
    assert started[0].poll() == -signal.SIGKILL


def test_the_process_does_not_outlive_a_killed_caller(fake, files, tmp_path, monkeypatch):
    """SIGKILL leaves no time for ``finally``: the judging process sees its stdin close."""
    monkeypatch.setenv("FAKE_TROUBLE", "hang subject_consistency")
    clips = write_clips(tmp_path / "clips", tuple(LIGHT), 3, side=16)

    def judge():
        videos = PromptSet(LIGHT, 3)
        Judge(files).score(videos.judged, videos.entries(clips), tmp_path / "out")

    caller = multiprocessing.get_context("fork").Process(target=judge)
    caller.start()
    while not fake.read_text():
        time.sleep(0.05)
    (worker,) = children(caller.pid)
    caller.kill()
    caller.join()
    for _ in range(200):
        if not alive(worker):
            break
        time.sleep(0.05)
    assert not alive(worker)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
