"""No text of a prompt, a label or a file of a run leads out of the folder that is written or shown."""

import json
from pathlib import Path

import pytest
from PIL import Image

from rlr.callbacks.prompt_sets import sample_sets
from rlr.cli import main
from rlr.data import Prompts
from rlr.evaluation.vbench.naming import VideoName, check_names
from rlr.records.record import Record
from rlr.records.run_page import write_page
from tests.cli.conftest import config

NAMES = (
    "../../escaped",
    "/tmp/escaped",
    "..",
    ".",
    "~/escaped",
    "-rf",
    "a/b",
    "a\0b",
    "a\nb",
    "a\rb",
    "\x1b[2J",
    "C:\\escaped",
    "x" * 300,
    "\u202egnp.exe",
    "$(touch escaped)",
    "%2e%2e%2fescaped",
    "CON",
)
"""Prompts that are ways to other files."""

__all__ = ["config"]


@pytest.mark.parametrize("name", NAMES, ids=map(str, range(len(NAMES))))
def test_a_prompt_as_the_name_of_a_video_stays_in_its_folder(name, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    try:
        check_names([name])
    except ValueError:
        return
    file = folder / VideoName(name, 0).file
    file.write_bytes(b"x")
    assert file.resolve().parent == folder.resolve()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [file.name]


def test_predictions_of_hostile_prompts_are_in_their_folder(config, tmp_path):
    """Their files have numbers; the prompts themselves stand in the JSON beside them."""
    prompts = [name for name in NAMES if "\0" not in name]
    (tmp_path / "inside").mkdir()
    file = tmp_path / "inside" / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    root = tmp_path / "inside" / "out"
    changes = (
        ("model: tests.modules.toy.AffineModel", "model: Tiny"),
        ("steps: 4", "steps: 3"),
        ("reward: tests.modules.toy.Level", "reward: Brightness"),
        ("class_path: Prompts", "class_path: PromptFile"),
        ("train: [one, two, three]", f"predict: {file}"),
        ("    val: [four, five]\n    batch_size: 2", "    batch_size: 8"),
    )
    written = config(*changes)
    before = {path for path in tmp_path.rglob("*")}
    main(["predict", "--config", written, f"--trainer.default_root_dir={root}"])
    new = {path for path in tmp_path.rglob("*")} - before
    assert all(path.is_relative_to(root) for path in new)
    found = [json.loads(path.read_text())["prompt"] for path in sorted((root / "predictions").rglob("0*.json"))]
    assert found == [prompt.strip() for prompt in prompts]


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/b", "..", "", "a\0b"])
def test_a_set_of_prompts_has_the_name_of_a_folder(name):
    with pytest.raises(ValueError, match="expected names that can be those of folders"):
        sample_sets(None, {name: Prompts(val=["a"])}, "val")
    assert list(sample_sets(None, {"a set": Prompts(val=["a"])}, "val")) == ["a set"]


@pytest.mark.parametrize(
    ("files", "suffix"),
    [
        ("../../../secret", ".png"),
        ("../../secret", ".png"),
        ("{out}/secret", ".png"),
        ("link", ".png"),
        ("0000", "/../../../../secret.png"),
        ("../../../secret.mp4", ""),
        ("../../../secret.txt", ""),
        ("a\0", ".png"),
    ],
)
def test_the_page_of_a_run_shows_no_file_outside_of_it(files, suffix, tmp_path):
    folder = tmp_path / "run" / "samples" / "val"
    folder.mkdir(parents=True)
    for name in ("secret.png", "run/secret.png"):
        Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / name)
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    card = {"prompt": "a cat", "files": {"aligned": files.format(out=tmp_path)}}
    (folder / "samples.json").write_text(json.dumps({"set": "val", "suffix": suffix, "samples": [card]}))
    (tmp_path / "run" / "metrics.csv").write_text("updates,reward/mean\n1,2.0\n")
    (sheet,) = Record(tmp_path / "run").sheets
    assert sheet.file(sheet.cards[0], "aligned") is None
    assert "<img" not in Path(write_page(tmp_path / "run")).read_text()


def test_a_file_of_the_run_is_shown(tmp_path):
    folder = tmp_path / "run" / "samples" / "val"
    folder.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "0000.png")
    card = {"prompt": "a cat", "files": {"aligned": "0000"}}
    (folder / "samples.json").write_text(json.dumps({"set": "val", "samples": [card]}))
    (sheet,) = Record(tmp_path / "run").sheets
    assert sheet.file(sheet.cards[0], "aligned") == folder / "0000.png"
