"""Which videos a set needs and what is judged on each, and the messages for a folder that does not fit."""

from collections import Counter

import pytest

from rlr.evaluation.vbench.dimensions import SIX, named
from rlr.evaluation.vbench.naming import VideoName
from rlr.evaluation.vbench.videos import AnyVideos, PromptSet, find
from tests.evaluation.vbench.toy import PROMPTS


def fill(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def whole(folder, samples=2):
    return fill(folder, [VideoName(prompt, i).file for prompt in PROMPTS for i in range(samples)])


def test_the_real_set_has_1255_clips():
    from rlr.data import VBenchPrompts

    videos = PromptSet(VBenchPrompts().dimensions_of)
    assert len(videos.names) == len({name.file for name in videos.names}) == 1255
    assert videos.dimensions == SIX
    names = {name.file.casefold() for name in videos.names}
    # 'a fantasy landscape' and 'A fantasy landscape'
    assert len(names) == 1250


def test_every_clip_is_judged_on_the_dimensions_of_its_prompt_and_on_those_that_need_no_file(tmp_path):
    entries = PromptSet(PROMPTS, 2).entries(whole(tmp_path))
    assert [entry.prompt for entry in entries] == list(PROMPTS)
    for entry in entries:
        assert entry.dimensions == (*PROMPTS[entry.prompt], "temporal_flickering")
        assert [path.name for path in entry.videos] == [f"{entry.prompt}-0.mp4", f"{entry.prompt}-1.mp4"]


def test_a_dimension_that_is_asked_for_is_judged_on_its_own_prompts(tmp_path):
    prompts = {"a": ("temporal_flickering",), "b": ("imaging_quality",)}
    entries = PromptSet(prompts, 1).entries(fill(tmp_path, ["a-0.mp4", "b-0.mp4"]))
    assert [entry.dimensions for entry in entries] == list(prompts.values())


def test_a_partial_set_is_judged_only_when_stated(tmp_path):
    (whole(tmp_path) / "A cat-1.mp4").unlink()
    stated = (
        r"holds 5 of the 6 videos of the set, and 'A cat-1.mp4' is the first that is missing; sample the rest, or judge"
    )
    with pytest.raises(ValueError, match=stated):
        PromptSet(PROMPTS, 2).entries(tmp_path)
    partial = PromptSet(PROMPTS, 2, partial=True)
    entries = partial.entries(tmp_path)
    assert sum(len(entry.videos) for entry in entries) == 5
    assert partial.describe(entries) == "5 of 6 videos"
    assert PromptSet(PROMPTS, 1).describe(PromptSet(PROMPTS, 1).entries(tmp_path)) == ""


def test_a_dimension_that_a_partial_set_has_no_clip_of(tmp_path):
    fill(tmp_path, ["a cat-0.mp4", "A cat-0.mp4"])
    with pytest.raises(
        ValueError, match=r"no video in .* is judged on background_consistency; leave it out with --dim"
    ):
        PromptSet(PROMPTS, 2, partial=True).entries(tmp_path)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere \(looked for at .*\); check the path"):
        PromptSet(PROMPTS).entries(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no mp4 file, and VBench judges no other; set another folder, or conv"):
        PromptSet(PROMPTS).entries(fill(tmp_path / "gifs", ["a cat-0.gif"]))
    with pytest.raises(
        ValueError, match=r"none of the 1 mp4 files in .* has the name of a video .* 'a cat-0.mp4'; set ano"
    ):
        PromptSet(PROMPTS, partial=True).entries(fill(tmp_path / "other", ["holiday.mp4"]))


def test_folders_within_are_searched_and_a_name_must_not_come_twice(tmp_path):
    """Published clips come in a folder for each dimension."""
    fill(tmp_path / "one", ["a cat-0.mp4", "a cat-1.mp4"])
    fill(tmp_path / "two", ["A cat-0.mp4"])
    assert list(find(tmp_path)) == ["A cat-0.mp4", "a cat-0.mp4", "a cat-1.mp4"] or len(find(tmp_path)) == 3
    fill(tmp_path / "two", ["a cat-1.mp4"])
    with pytest.raises(
        ValueError, match=r"two videos have the name 'a cat-1.mp4', .*one.* and .*two.*; VBench distinguishes"
    ):
        find(tmp_path)


def test_any_videos_are_judged_on_everything(tmp_path):
    fill(tmp_path, ["holiday.mp4", "snow.mp4", "notes.txt"])
    videos = AnyVideos(named(["imaging_quality"]))
    entries = videos.entries(tmp_path)
    assert [entry.videos[0].name for entry in entries] == ["holiday.mp4", "snow.mp4"]
    assert {entry.dimensions for entry in entries} == {("imaging_quality", "temporal_flickering")}
    assert videos.describe(entries) == "2 own videos"


def test_a_subset_has_prompts_of_every_dimension():
    from rlr.data import VBenchPrompts

    some = PromptSet(VBenchPrompts().dimensions_of).first(2, 1)
    assert some.dimensions == SIX
    # three dimensions share their prompts, and two others theirs
    assert len(some.names) == 2 + 2 + 2
    judged = Counter(name for names in some.dimensions_of.values() for name in names)
    assert set(judged.values()) == {2}


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match=r"VBench: expected samples >= 1, found 0; VBench asks for 5 videos"):
        PromptSet(PROMPTS, 0)
    with pytest.raises(ValueError, match="there is no dimension 'scene' that can be judged here"):
        PromptSet({"a": ("scene",)})
