"""Every set of prompts in a config, by its short name."""

import inspect
import re
from pathlib import Path

import pytest
import yaml

import rlr.data
from rlr.cli import main
from rlr.data import (
    DCoT,
    HPDv2,
    MotionPrompts,
    PickAPic,
    PromptData,
    PromptFile,
    SimpleAnimals,
    VBenchPrompts,
    WithoutWords,
)
from rlr.toy.data import WorldVideos
from tests.data.fixtures import HPD, NO_PICTURES, VBENCH

MODEL = """
class_path: ImageAlignment
init_args:
  model: tests.data.toy.AnyPrompt
  sampler: {class_path: DDIM, init_args: {steps: 3}}
  reward: Brightness
  estimator: {class_path: FirstOrder}
"""

TRAINER = """
accelerator: cpu
max_epochs: -1
max_steps: 2
enable_progress_bar: false
enable_model_summary: false
"""

LOADER = {"batch_size", "samples_per_prompt", "evaluation_samples", "seed", "shuffle", "keep"}

CONFIGS = {
    PickAPic: {"source": str(NO_PICTURES), "keep": "WithoutWords"},
    HPDv2: {"train": str(HPD), "benchmark": str(HPD), "styles": ["photo", "anime"], "per_style": 2},
    MotionPrompts: {"categories": ["clothes"], "samples_per_prompt": 2},
    SimpleAnimals: {"seed": 3},
    WorldVideos: {"train": 8, "held_out": 4},
    VBenchPrompts: {"path": str(VBENCH), "dimensions": ["imaging_quality"]},
}


def is_data(kind: object) -> bool:
    return inspect.isclass(kind) and issubclass(kind, PromptData) and kind is not PromptData


@pytest.fixture
def run(tmp_path: Path):
    """Returns a function that runs a command on a toy with the data of a class and arguments; returns the data."""

    def call(command: str, kind: str, args: dict, *further: str):
        data = {"class_path": kind, "init_args": {"batch_size": 2, **args}}
        trainer = {**yaml.safe_load(TRAINER), "default_root_dir": str(tmp_path / "out")}
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump({"model": yaml.safe_load(MODEL), "data": data, "trainer": trainer}))
        return main([command, f"--config={config}", *further]).datamodule

    return call


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_validates_by_short_name(kind, run):
    data = run("validate", kind.__name__, CONFIGS[kind])
    assert type(data) is kind
    assert data.read("val") == kind(**with_filter(CONFIGS[kind])).read("val")


@pytest.mark.parametrize(
    "kind", [kind for kind in CONFIGS if kind is not VBenchPrompts], ids=lambda kind: kind.__name__
)
def test_trains_by_short_name(kind, run):
    data = run("fit", kind.__name__, CONFIGS[kind], "--trainer.limit_val_batches=0")
    assert data.read("train") == kind(**with_filter(CONFIGS[kind])).read("train") != []


@pytest.mark.parametrize("kind", [rlr.data.PromptData, *(kind for kind in vars(rlr.data).values() if is_data(kind))])
def test_the_loader_s_arguments_stand_once(kind, capsys):
    """A data set's own class names only what it adds, and its help shows all."""
    own = {name for name, p in inspect.signature(kind).parameters.items() if p.kind is not p.VAR_KEYWORD}
    if kind is PromptData or "__init__" not in vars(kind):
        assert own == LOADER
        return
    # VBench asks for five videos of a prompt
    assert own & LOADER == ({"evaluation_samples"} if kind is VBenchPrompts else set())
    with pytest.raises(SystemExit):
        main(["fit", f"--data.help={kind.__name__}"])
    shown = set(re.findall(r"^  --data\.(\w+)[ ,]", capsys.readouterr().out, re.MULTILINE))
    # the prompts inside have their own
    assert shown == own | (set() if kind is DCoT else LOADER)


def test_words_of_a_config(run, tmp_path):
    (tmp_path / "val.txt").write_text("a cat\na dog\n")
    keep = {"class_path": "WithoutWords", "init_args": {"words": ["dog"]}}
    data = run("validate", "PromptFile", {"val": str(tmp_path / "val.txt"), "keep": keep})
    assert type(data) is PromptFile
    assert data.read("val") == ["a cat"]


@pytest.mark.parametrize(
    ("command", "kind", "args", "stated"),
    [
        ("validate", "PickAPic", {"source": "no/folder"}, "found 'no/folder', which is neither"),
        (
            "validate",
            "PickAPic",
            {"keep": "WithoutWord"},
            "data.keep: there is no PromptFilter 'WithoutWord'; did you mean",
        ),
        (
            "validate",
            "HPDv2",
            {"benchmark": str(HPD), "train": None, "styles": ["pho"]},
            "HPDv2 has no style 'pho'; there",
        ),
        (
            "fit",
            "VBenchPrompts",
            {},
            "VBenchPrompts has no prompts for 'train'; train on others, such as those of Motion",
        ),
        ("validate", "Prompts", {"train": ["a"]}, "Prompts has no prompts for 'val'; set data.init_args.val"),
        ("validate", "PromptFile", {}, "PromptFile has no prompts for 'val'; set data.init_args.val"),
        (
            "validate",
            "VBenchPrompts",
            {"sead": 1},
            "data: VBenchPrompts has no argument 'sead'; did you mean 'seed'",
        ),
    ],
)
def test_a_mistake_is_one_sentence(run, capsys, monkeypatch, command, kind, args, stated):
    monkeypatch.delenv("RLR_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as exit_:
        run(command, kind, args)
    assert exit_.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert stated in errors[0]


def with_filter(args: dict) -> dict:
    return {**args, "keep": WithoutWords()} if "keep" in args else args
