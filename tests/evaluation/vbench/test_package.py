"""The installed VBench, called directly on the same clips and weights, gives the numbers that the judge gives."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from rlr.evaluation.vbench.dimensions import DIMENSIONS, SIX, TEMPORAL_FLICKERING
from rlr.evaluation.vbench.scoring import DINO, Judge
from rlr.evaluation.vbench.videos import AnyVideos, PromptSet
from tests.evaluation.vbench.toy import write_clips, write_info

ROOT = Path(__file__).parents[3]
ALL = {
    "a cat": tuple(dimension.name for dimension in SIX),
    "A cat": ("imaging_quality", "subject_consistency", "temporal_flickering"),
    "an alley, at night": ("background_consistency", "temporal_flickering"),
}


def run(script: str, *words: object, **places: str) -> str:
    """Runs a script of this folder in a process of its own, as VBench must be, and returns what it prints."""
    command = [sys.executable, "-m", f"tests.evaluation.vbench.{script}", *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **places}, check=True, capture_output=True
    ).stdout.decode()


def directly(
    folder: Path, info: Path, mode: str, out: Path, dimensions, **places: str
) -> dict[str, tuple[float, dict]]:
    """Returns score and numbers by video of each dimension, as VBench writes them."""
    run("direct", folder, info, mode, out, *dimensions, **places)
    found = json.loads((out / "direct_eval_results.json").read_text())
    return {
        name: (score, {Path(clip["video_path"]).name: clip["video_results"] for clip in clips})
        for name, (score, clips) in found.items()
    }


def judged(videos, folder: Path, weights: Path, out: Path) -> dict[str, tuple[float, dict]]:
    scores = Judge(weights).score(videos.judged, videos.entries(folder), out)
    return {name: (score.value, dict(score.videos)) for name, score in scores.items()}


def test_temporal_flickering_needs_no_weights(tmp_path):
    """On its own prompts alone, as in the standard mode; 32 × 32 pixels are enough."""
    prompts = {"a cat": ("temporal_flickering",), "A cat": ("temporal_flickering",), "a dog": ("color",)}
    folder = write_clips(tmp_path / "clips", tuple(prompts), 3)
    info = write_info(tmp_path / "info.json", prompts)
    direct = directly(folder, info, "vbench_standard", tmp_path / "direct", ["temporal_flickering"])
    videos = PromptSet({prompt: names for prompt, names in prompts.items() if "color" not in names}, 3)
    ours = judged(videos, folder, tmp_path / "no weights", tmp_path / "ours")
    assert ours == direct
    value, clips = ours["temporal_flickering"]
    assert len(clips) == 6
    assert 0.9 < value < 1
    # faster texture flickers more: the numbers are not those of another clip
    assert clips["a cat-0.mp4"] > clips["A cat-0.mp4"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Returns a function that writes random networks once for each size and returns their folder."""

    @cache
    def folder(size: str) -> Path:
        place = tmp_path_factory.mktemp(size)
        run("networks", place, size)
        return place

    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "mode"), [("small", "vbench_standard"), ("small", "custom_input"), ("full", "vbench_standard")]
)
def test_all_dimensions_on_random_networks(size, mode, networks, tmp_path, monkeypatch):
    weights = networks(size)
    monkeypatch.setattr("rlr.evaluation.vbench.weights.published", lambda file, path: True)
    folder = write_clips(tmp_path / "clips", tuple(ALL), 2, side=128)
    info = write_info(tmp_path / "info.json", ALL)
    names = [dimension.name for dimension in (*SIX, TEMPORAL_FLICKERING)]
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / Path(DINO).name).symlink_to(weights / DINO)
    direct = directly(
        folder,
        info,
        mode,
        tmp_path / "direct",
        names,
        VBENCH_CACHE_DIR=str(weights),
        TORCH_HOME=str(tmp_path / "torch"),
        TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1",
    )
    videos = {"vbench_standard": PromptSet(ALL, 2), "custom_input": AnyVideos(SIX)}[mode]
    ours = judged(videos, folder, weights, tmp_path / "ours")
    assert ours.keys() == direct.keys() == set(names)
    for name in names:
        # the order of videos in a folder is that of the file system, and sums depend on it in the last digits
        assert ours[name][0] == pytest.approx(direct[name][0], rel=1e-12)
        assert ours[name][1] == direct[name][1]
        assert len(set(ours[name][1].values())) > 1 or name == "dynamic_degree"


@pytest.mark.slow
def test_motion_smoothness_needs_trust_in_its_file(networks, tmp_path, monkeypatch):
    """As long as its file holds a NumPy number: the other five are loaded without."""
    monkeypatch.setattr("rlr.evaluation.vbench.weights.published", lambda file, path: True)
    careful = replace(DIMENSIONS["motion_smoothness"], pickled=False)
    videos = AnyVideos((careful,))
    folder = write_clips(tmp_path / "clips", ["a cat"], 1, side=128)
    with pytest.raises(ChildProcessError, match=r"^VBench failed in motion_smoothness \(UnpicklingError: "):
        Judge(networks("small")).score(videos.judged, videos.entries(folder), tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["motion_smoothness", "dynamic_degree"])
def test_the_least_side_is_where_networks_begin_to_give_numbers(name, networks):
    """One pixel less, and their output is NaN, of which VBench makes a score all the same."""
    least = DIMENSIONS[name].least_side
    sizes = ((least, 128), (128, least), (least - 1, 128))
    finite = [json.loads(run("small_frames", networks("small"), name, *size)) for size in sizes]
    assert finite == [True, True, False]
