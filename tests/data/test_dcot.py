"""Prompts in stages: who writes them, that they pass through data and files, and that the whole stays what it was."""

import json

import pytest
import torch
import yaml

from rlr.cli import main
from rlr.data import DCoT, HandPrompts, Prompts, StageFile, StageWriter, Templates
from rlr.evaluation import SampleSet
from rlr.models import StagedPrompt
from rlr.toy.data import Layered, WorldPrompts, WorldStages
from rlr.toy.rewards import ExactCheck
from rlr.toy.world.caption import parse

SPLITS = ("train", "val", "test", "predict")


class Count(StageWriter):
    """Two stages of a prompt, and the number of prompts asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def write(self, prompts):
        self.asked += prompts
        return [(prompt[0], prompt[-1]) for prompt in prompts]


def lists(**settings) -> Prompts:
    return Prompts(["one", "two", "three"], ["four"], predict=["five", "six"], **settings)


# ---------------------------------------------------------------- the data


def test_the_whole_prompts_are_those_of_the_data():
    whole, staged = lists(batch_size=2, samples_per_prompt=2), DCoT(lists(batch_size=2, samples_per_prompt=2), Count())
    for split in SPLITS:
        assert staged.read(split) == whole.read(split)
    assert list(staged.train_dataloader()) == list(whole.train_dataloader())
    assert list(staged.predict_dataloader()) == list(whole.predict_dataloader())


def test_batches_hold_the_stages():
    data = DCoT(lists(batch_size=2), Count(), [0.25])
    (batch,) = data.predict_dataloader()
    assert [repr(prompt) for prompt in batch.prompts] == [
        "StagedPrompt('five', ('f', 'e'), (0.25,))",
        "StagedPrompt('six', ('s', 'x'), (0.25,))",
    ]


def test_a_split_is_written_once_and_only_when_it_is_read():
    writer = Count()
    data = DCoT(lists(), writer)
    assert writer.asked == []
    for _ in range(3):
        data.read("train")
    assert writer.asked == ["one", "two", "three"]


def test_what_is_missing_is_missing_in_the_data():
    with pytest.raises(ValueError, match=r"no prompts for 'test'; set data\.init_args\.test"):
        DCoT(Prompts(["one"]), Count()).test_dataloader()


def test_base_scores_of_other_stages_are_others():
    prompts = [StagedPrompt("x", ("a", "b")), StagedPrompt("x", ("a", "c")), StagedPrompt("x", ("a", "b"), (0.2,)), "x"]
    assert len({str(SampleSet([prompt]).key) for prompt in prompts}) == 4


# ---------------------------------------------------------------- the hands


def test_the_hands_are_the_paper_s_in_three_stages():
    data = DCoT(HandPrompts(batch_size=5), StageFile())
    assert all(data.read(split) == data.read("train") for split in SPLITS)
    assert data.read("val") == [
        "A realistic open palm facing upward",
        "A picture of a hand facing downward",
        "A hand in a relaxed position",
        "A hand",
        "A photo of a hand",
    ]
    stages = [prompt.stages for prompt in data.read("val")]
    assert len({stage for three in stages for stage in three}) == 15
    for coarse, mid, fine in stages:
        assert all("hand" in stage.lower() or "palm" in stage for stage in (coarse, mid, fine))
        assert "composition" in coarse
        assert "finger" in mid
        assert "texture" in fine or "fine lines" in fine


# ---------------------------------------------------------------- writers


def test_a_file_says_the_stages(tmp_path):
    path = tmp_path / "stages.jsonl"
    path.write_text(
        '{"prompt": "a cat", "stages": ["a", "b"]}\n\n{"prompt": " 猫 ", "stages": ["c", "d", "e"], "id": 3}\n'
    )
    assert StageFile(str(path)).write(["猫", "a cat"]) == [("c", "d", "e"), ("a", "b")]
    with pytest.raises(ValueError, match=r"stages.jsonl has no stages of the prompt 'a dog'; add a line"):
        StageFile(str(path)).write(["a dog"])


@pytest.mark.parametrize(
    ("line", "stated"),
    [
        ("{oops}", "line 2 of .*stages.jsonl is not JSON"),
        ('{"stages": ["a"]}', "line 2 of .*stages.jsonl has no text under 'prompt'"),
        ('"a cat"', 'has no list of texts under "stages"'),
        ('{"prompt": "a cat"}', 'has no list of texts under "stages"'),
        ('{"prompt": "a cat", "stages": []}', 'has no list of texts under "stages"'),
        ('{"prompt": "a cat", "stages": "a"}', 'has no list of texts under "stages"'),
        ('{"prompt": "a cat", "stages": ["a", ""]}', 'has no list of texts under "stages"'),
    ],
)
def test_a_line_that_says_none_is_named(tmp_path, line, stated):
    path = tmp_path / "stages.jsonl"
    path.write_text('{"prompt": "a", "stages": ["b"]}\n' + line)
    with pytest.raises(ValueError, match=stated):
        StageFile(str(path))


def test_templates_put_words_around_the_prompt():
    assert Templates(["{prompt}", "{prompt} {and} {prompt}"]).write(["a {cat}"]) == [
        ("a {cat}", "a {cat} {and} a {cat}")
    ]
    (stages,) = Templates().write(["a cat"])
    assert len(set(stages)) == 3
    assert all(stage.startswith("a cat, ") for stage in stages)
    with pytest.raises(ValueError, match=r"texts that hold \{prompt\}"):
        Templates(["a cat"])


def test_the_world_has_layout_shape_and_texture():
    caption = "a red circle left of a blue square on a white striped background"
    assert WorldStages().write([caption]) == [
        (
            "a red circle left of a blue square on a white background",
            "a red circle and a blue square on a white background",
            caption,
        )
    ]


def test_all_stages_of_the_world_are_captions_whose_claims_the_whole_makes():
    for prompt in DCoT(WorldPrompts(200, 100), WorldStages()).read("val"):
        specs = [parse(stage) for stage in prompt.stages]
        whole = parse(str(prompt))
        assert specs[2] == whole
        for spec in specs:
            assert spec.groups == whole.groups
            assert spec.tone == whole.tone
            for claim in ("position", "relation", "texture"):
                assert getattr(spec, claim) in (None, getattr(whole, claim))
        assert (specs[0].position, specs[0].relation) == (whole.position, whole.relation)


def test_layered_captions_have_something_to_say_in_each_stage():
    data = WorldPrompts(100, 60, seed=3, keep=Layered())
    assert (len(data.read("train")), len(data.read("val"))) == (100, 60)
    for prompt in DCoT(data, WorldStages()).read("val") + DCoT(data, WorldStages()).read("train"):
        assert len(set(prompt.stages)) == 3
        spec = parse(str(prompt))
        assert spec.texture
        assert spec.position or spec.relation


def test_how_many_captions_are_layered():
    data, keep = WorldPrompts(2000, 2000), Layered()
    kept, held_out = (sum(map(keep, captions)) / 2000 for captions in (data.read("train"), data.read("val")))
    assert kept == pytest.approx(0.2, abs=0.03)
    assert held_out == pytest.approx(0.11, abs=0.03)
    same = sum(len(set(stages)) == 1 for stages in WorldStages().write(data.read("val"))) / 2000
    assert same == pytest.approx(0.42, abs=0.03)


def test_the_exact_check_reads_the_whole():
    (prompt,) = DCoT(Prompts(predict=["a red circle"]), WorldStages()).read("predict")
    assert ExactCheck()(torch.zeros(1, 3, 32, 32), [prompt]).tolist() == [0]


# ---------------------------------------------------------------- the command line

CONFIG = """
model:
  class_path: ImageAlignment
  init_args:
    model: tests.data.toy.AnyPrompt
    sampler: {class_path: DDIM, init_args: {steps: 6}}
    reward: Brightness
    estimator: {class_path: RLR, init_args: {length: 2, step_range: [4, 3]}}
data:
  class_path: DCoT
  init_args:
    data: {class_path: Prompts, init_args: {train: [a, bb, ccc], predict: [dddd, eeeee], batch_size: 2}}
    writer: {class_path: Templates, init_args: {stages: ['{prompt}', '{prompt}!', '{prompt}!!']}}
    starts: [0.5, 0.75]
trainer: {accelerator: cpu, max_epochs: -1, max_steps: 1, enable_progress_bar: false, enable_model_summary: false}
"""


def test_it_trains_and_predicts_from_a_config(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(CONFIG)
    args = [f"--config={tmp_path / 'config.yaml'}", f"--trainer.default_root_dir={tmp_path / 'out'}"]
    cli = main(["fit", *args])
    assert cli.trainer.global_step == 1
    assert cli.model.estimator.step_range == (4, 3)
    # written beforehand, by one process
    assert cli.datamodule._splits.keys() == {"train", "val"}
    cli = main(["predict", *args])
    assert cli.datamodule._splits.keys() == {"predict"}
    story = json.loads((tmp_path / "out" / "predictions" / "00001.json").read_text())
    assert story["prompt"] == "eeeee"
    assert (story["stages"], story["starts"]) == (["eeeee", "eeeee!", "eeeee!!"], [0.5, 0.75])
    plain = yaml.safe_load(CONFIG)
    plain["data"] = plain["data"]["init_args"]["data"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(SystemExit):
        main(["predict", *args])
    assert "in the stages ['eeeee', 'eeeee!', 'eeeee!!'], which are none now" in capsys.readouterr().err
    (tmp_path / "out" / "predictions").rename(tmp_path / "earlier")
    main(["predict", *args])
    other = json.loads((tmp_path / "out" / "predictions" / "00001.json").read_text())
    assert other["seed"] == story["seed"]
    assert other["reward"] != story["reward"]
    assert "stages" not in other
