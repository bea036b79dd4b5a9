import json
import shutil

import pytest

from rlr.data import HPDv2, WithoutWords
from tests.data.fixtures import HPD

STYLES = ("anime", "concept-art", "paintings", "photo")


@pytest.fixture
def folder(tmp_path):
    """A copy to damage."""
    return shutil.copytree(HPD, tmp_path / "hpdv2")


def test_training_prompts_come_once_and_are_not_in_the_benchmark():
    data = HPDv2(str(HPD), str(HPD))
    wanted = ["a kitchen with a white stove", "castle in the clouds, matte painting", "a nude study in charcoal"]
    assert data.read("train") == wanted
    # what is evaluated here changes nothing of what may be trained on
    assert HPDv2(str(HPD), str(HPD), styles=("anime",), per_style=1).read("train") == wanted


def test_the_benchmark_is_in_the_order_of_styles_and_files():
    data = HPDv2(str(HPD), str(HPD))
    wanted = [f"{style} prompt {k}" for style in STYLES for k in range(5)]
    assert data.read("val") == data.read("test") == data.read("predict") == wanted
    assert data.style_of == {f"{style} prompt {k}": style for style in STYLES for k in range(5)}


def test_a_part_of_the_benchmark():
    data = HPDv2(str(HPD), str(HPD), styles=("photo", "anime"), per_style=2)
    assert data.read("test") == ["photo prompt 0", "photo prompt 1", "anime prompt 0", "anime prompt 1"]
    assert set(data.style_of.values()) == {"photo", "anime"}


def test_the_benchmark_keeps_its_repetitions(folder):
    (folder / "benchmark" / "photo.json").write_text(json.dumps(["anime prompt 0", "x", "x"]))
    data = HPDv2(None, str(folder))
    assert data.read("test")[-3:] == ["anime prompt 0", "x", "x"]
    assert (data.style_of["anime prompt 0"], data.style_of["x"]) == ("anime", "photo")


def test_either_part_alone():
    data = HPDv2(str(HPD), None)
    assert (len(data.read("train")), data.val_dataloader()) == (4, [])
    with pytest.raises(ValueError, match=r"HPDv2 has no prompts for 'test'; set data.init_args.benchmark"):
        data.test_dataloader()
    data = HPDv2(None, str(HPD / "benchmark"))
    assert len(data.read("test")) == 20
    with pytest.raises(ValueError, match=r"HPDv2 has no prompts for 'train'; set data.init_args.train"):
        data.train_dataloader()


def test_a_filter_is_for_every_split():
    data = HPDv2(str(HPD), str(HPD), keep=WithoutWords(["nude", "2"]))
    assert data.read("train") == ["a kitchen with a white stove", "castle in the clouds, matte painting"]
    assert len(data.read("test")) == 16


def test_the_hub_is_asked_for_texts_only(monkeypatch):
    asked = []

    def download(source, repo_type, revision, allow_patterns):
        assert revision is None
        asked.append((source, repo_type, allow_patterns))
        return str(HPD)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    HPDv2()
    assert sorted(asked) == [
        ("ymhao/HPDv2", "dataset", ["train.json"]),
        ("zhwang/HPDv2", "dataset", [f"benchmark/{style}.json" for style in STYLES]),
    ]


@pytest.mark.parametrize(
    ("settings", "stated"),
    [
        ({"styles": ("photos",)}, "HPDv2 has no style 'photos'; there are anime, concept-art, paintings, photo"),
        ({"per_style": 0}, "evaluates 1 or more prompts of each style, and per_style=0 was given"),
    ],
)
def test_impossible_parts(settings, stated):
    with pytest.raises(ValueError, match=stated):
        HPDv2(str(HPD), str(HPD), **settings)


@pytest.mark.parametrize(
    ("file", "text", "stated"),
    [
        ("train.json", '[{"prompt": "a"}, {"caption": "b"}]', r"item 2 of .*train.json has no text under 'prompt'"),
        ("train.json", '[{"prompt": "a"}, {"prompt": 3}]', r"item 2 of .*train.json has no text under 'prompt'"),
        (
            "train.json",
            '[{"prompt": "a"},\n {"pro',
            r"line 2 of .*train.json is not JSON \(.*\); download the file again",
        ),
        ("train.json", '{"prompt": "a"}', r"train.json holds no list of prompts; use the published file"),
        ("benchmark/photo.json", "[]", r"photo.json holds no list of prompts"),
        ("benchmark/photo.json", '["a", null]', r"item 2 of .*photo.json has no text"),
        ("benchmark/photo.json", '["a", "\xff"]', r"photo.json is not UTF-8: line 1 has the byte 0xff"),
    ],
)
def test_what_is_wrong_with_a_file(folder, file, text, stated):
    (folder / file).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=stated):
        HPDv2(str(folder), str(folder))


def test_a_missing_style(folder):
    (folder / "benchmark" / "photo.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no prompt file .*benchmark/photo.json"):
        HPDv2(str(folder), str(folder))
