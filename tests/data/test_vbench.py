import json
import shutil
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlr.data import VBenchPrompts
from rlr.data.vbench import SIX
from tests.data.fixtures import VBENCH


def test_six_dimensions_are_judged_on_251_prompts():
    data = VBenchPrompts()
    assert len(data.read("test")) == len(set(data.read("test"))) == 251
    assert data.read("val") == data.read("test") == data.read("predict")
    judged = Counter(name for names in data.dimensions_of.values() for name in names)
    assert judged == dict(zip(SIX, (72, 86, 72, 72, 93, 93), strict=True))
    # five videos of each
    assert sum(len(batch.prompts) for batch in data.test_dataloader()) == 1255


def test_one_dimension():
    info = json.loads(Path(find_spec("vbench").origin).with_name("VBench_full_info.json").read_text())
    wanted = [item["prompt_en"] for item in info if "human_action" in item["dimension"]]
    data = VBenchPrompts(("human_action",))
    assert data.read("test") == wanted
    assert len(wanted) == 100
    assert set(data.dimensions_of.values()) == {("human_action",)}


def test_a_prompt_of_two_items_has_the_dimensions_of_both():
    data = VBenchPrompts(("appearance_style", "imaging_quality", "temporal_flickering"), str(VBENCH))
    assert data.dimensions_of == {
        "In a still frame, a stop sign": ("temporal_flickering",),
        "a harbour in fog": ("imaging_quality", "appearance_style"),
    }


def test_the_package_is_found_and_not_imported(tmp_path, monkeypatch):
    package = tmp_path / "vbench"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    shutil.copy(VBENCH, package)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "vbench", raising=False)
    assert len(VBenchPrompts().read("test")) == 4


def test_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setattr("rlr.data.vbench.find_spec", lambda name: None)
    stated = r"the package vbench is not installed; install it, or set data.init_args.path to a VBench_full_info.json"
    with pytest.raises(FileNotFoundError, match=stated):
        VBenchPrompts()


def test_it_is_not_for_training():
    with pytest.raises(
        ValueError, match="VBenchPrompts has no prompts for 'train'; train on others, such as those of Mo"
    ):
        VBenchPrompts().train_dataloader()
    with pytest.raises(ValueError, match=r"VBenchPrompts has no prompts for 'test'; set data.init_args.dimensions"):
        VBenchPrompts(()).test_dataloader()


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        (
            '[{"prompt_en": "a", "dimension": ["scene"]}, {"prompt": "b"}]',
            r"item 2 of .*info.json has no text under 'prom",
        ),
        ('[{"prompt_en": "a", "dimension": "scene"}]', r"item 1 of .*info.json has no list of names under 'dimension'"),
        ('["a"]', r"item 1 of .*info.json has no list of names under 'dimension'; use a VBench_full_info.json"),
        (
            '[{"prompt_en": "a", "dimension": ["scene"]}]',
            r"no prompt of .*info.json is for the dimension 'color'; there are",
        ),
        ('[{"prompt_en": "a", ', r"line 1 of .*info.json is not JSON"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, text, stated):
    (tmp_path / "info.json").write_text(text)
    with pytest.raises(ValueError, match=stated):
        VBenchPrompts(("color",), str(tmp_path / "info.json"))
