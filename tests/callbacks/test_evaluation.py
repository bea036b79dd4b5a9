"""An evaluation is of fixed samples, leaves training alone, and gives the same results by every path."""

import csv
import json
import math
from types import MappingProxyType

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from rlr.callbacks import (
    EMA,
    Checkpointing,
    Diversity,
    Evaluation,
    Listener,
    PredictionWriter,
    SafeCheckpointIO,
    SampleGrid,
    Scheduled,
)
from rlr.data import Prompts
from rlr.estimators import DDPO
from rlr.evaluation import Evaluator, RewardMetric, SampleSet
from rlr.evaluation.base_scores import BaseScores
from rlr.rewards import Brightness, Combine, RunningZScore
from rlr.samplers import DDIM
from tests.modules.toy import WORDS, AffineModel, Hard, Level, Replay, align, run, weights


class Scaled(Brightness):
    """Brightness with a version and a published scale."""

    scales = MappingProxyType({"x100": 100.0})

    @property
    def label(self):
        return "Bright2.1"


def data(**settings):
    return Prompts(list(WORDS), val=list(WORDS[:5]), test=list(WORDS[2:]), batch_size=4, **settings)


def other(*words, **settings):
    return Prompts(val=list(words), **settings)


def fit(evaluation, tmp_path, steps=3, module=None, **settings):
    module = module or align()
    settings = {"default_root_dir": tmp_path, "callbacks": [evaluation], **settings}
    return module, run(module, data(), steps, **settings)


def examine(evaluation, module, tmp_path, ckpt_path=None, prompts=None, **settings):
    silent = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    plugins = [SafeCheckpointIO()]
    callbacks = [*settings.pop("callbacks", []), evaluation]
    trainer = Trainer(**silent, callbacks=callbacks, plugins=plugins, default_root_dir=tmp_path, **settings)
    trainer.test(module, datamodule=prompts or data(), ckpt_path=ckpt_path, verbose=False)
    return trainer


def saving(folder):
    return {"enable_checkpointing": True, "plugins": [SafeCheckpointIO()]}, Checkpointing(1, str(folder))


def scores(evaluation, name="Prompts", label="Level"):
    (found,) = [m for m in evaluation.results.sets[name] if m.label == label]
    return found


class Heard(Callback, Listener):
    def __init__(self):
        self.results = []

    def on_evaluation(self, trainer, pl_module, results):
        self.results.append(results)


# ---------------------------------------------------------------- samples


def direct(module, prompts, seed=0, samples=1):
    return measure(module.chain, prompts, samples, seed)["Level"]


def measure(chain, prompts, samples=1, seed=0, batch=8, metrics=()):
    """The values by label, without a trainer."""
    return Evaluator(SampleSet(prompts, samples, seed, batch), [RewardMetric(Level()), *metrics]).evaluate(chain).values


def test_scores_are_those_of_the_model_on_the_prompts(tmp_path):
    evaluation = Evaluation(every=0, samples=3, seed=5)
    module, _ = fit(evaluation, tmp_path)
    torch.testing.assert_close(scores(evaluation).scores, direct(module, list(WORDS[:5]), 5, 3))
    torch.testing.assert_close(scores(evaluation).base, direct(align(), list(WORDS[:5]), 5, 3))
    assert (scores(evaluation).scores - scores(evaluation).base).abs().min() > 1e-4


def test_one_image_whatever_the_batch():
    chain = align().chain
    whole, single, more = (
        measure(chain, prompts, 2, batch=batch)["Level"]
        for prompts, batch in ((WORDS[:5], 10), (WORDS[:5], 1), (WORDS, 3))
    )
    torch.testing.assert_close(whole, single)
    torch.testing.assert_close(whole, more[:5])
    assert len(whole.unique()) == 10


@pytest.mark.parametrize("world", [2, 3, 7])
def test_ranks_share_the_prompts_and_nothing_changes(world):
    """Seven ranks for five prompts: two of them have none."""
    chain, samples = align().chain, SampleSet(WORDS[:5], 2)
    whole = {
        row: pixels for batch in samples.batches(chain) for row, pixels in zip(batch.rows, batch.pixels, strict=True)
    }
    shares = [samples.rows(rank, world) for rank in range(world)]
    assert sorted(row for share in shares for row in share) == list(range(10))
    for share in shares:
        for batch in samples.batches(chain, share):
            torch.testing.assert_close(batch.pixels, torch.stack([whole[row] for row in batch.rows]))


def test_several_sets_and_rewards(tmp_path):
    evaluation = Evaluation(
        {"one": other("one", "two"), "three": other("three", evaluation_samples=2)}, [Level(), Hard(), Scaled()]
    )
    fit(evaluation, tmp_path)
    assert {name: [m.label for m in sets] for name, sets in evaluation.results.sets.items()} == {
        "one": ["Level", "Hard", "Bright2.1"],
        "three": ["Level", "Hard", "Bright2.1"],
    }
    assert scores(evaluation, "three", "Hard").scores.shape == (1, 2)
    torch.testing.assert_close(scores(evaluation, "one").scores, scores(evaluation, "one", "Hard").scores)


def test_held_out_prompts_are_those_of_the_stage(tmp_path):
    during, after = Evaluation(), Evaluation(limit=4)
    module, _ = fit(during, tmp_path)
    examine(after, module, tmp_path)
    assert during.results.prompts == {"Prompts": list(WORDS[:5])}
    assert after.results.prompts == {"Prompts": list(WORDS[2:6])}


def test_parts_of_a_combination_are_scored_apart(tmp_path):
    reward = Combine({"a": Level(), "b": Brightness()}, {"a": 1.0, "b": 1.0}, RunningZScore())
    evaluation = Evaluation()
    module, _ = fit(evaluation, tmp_path, module=align(reward=reward))
    torch.testing.assert_close(scores(evaluation).scores, direct(module, list(WORDS[:5])))
    assert scores(evaluation, label="Brightness").scores.shape == (5, 1)


# ---------------------------------------------------------------- when


def test_evaluates_at_the_start_every_n_updates_and_at_the_end(tmp_path):
    heard, evaluation = Heard(), Evaluation(every=2)
    fit(evaluation, tmp_path, 5, align(accumulate=2), callbacks=[evaluation, heard])
    assert [results.update for results in heard.results] == [0, 2, 4, 5]
    first = heard.results[0].sets["Prompts"][0]
    assert torch.equal(first.scores, first.base)


def test_a_resumed_run_does_not_evaluate_again_where_it_begins(tmp_path):
    """Its first batch is half an update, and the update before was evaluated already."""
    settings, checkpointing = saving(tmp_path)
    first, second = Heard(), Heard()
    module = align(accumulate=2)
    fit(Evaluation(), tmp_path, 2, module, callbacks=[checkpointing, Evaluation(every=2), first], **settings)
    further = {"callbacks": [Evaluation(every=2), second], "ckpt_path": tmp_path / "last.ckpt"}
    fit(Evaluation(), tmp_path, 4, align(accumulate=2), **further, **settings)
    assert [results.update for results in first.results] == [0, 2]
    assert [results.update for results in second.results] == [4]


def test_never_in_training_if_asked_so(tmp_path):
    heard, evaluation = Heard(), Evaluation(every=None)
    fit(evaluation, tmp_path, 2, callbacks=[evaluation, heard])
    assert heard.results == []
    assert not (tmp_path / "evaluation").exists()


class Gambling(Level):
    """Adds noise of a global generator, whose state an evaluation must leave alone."""

    def forward(self, samples, prompts):
        return super().forward(samples, prompts) * (1 + torch.rand(()))


def test_training_is_as_without(tmp_path):
    """Even where the reward draws random numbers and learns its scale."""

    def trained(**settings):
        torch.manual_seed(0)
        parts = {"a": Gambling(), "b": Brightness()}
        module = align(reward=Combine(parts, {"a": 1.0, "b": 1.0}, RunningZScore()))
        run(module, data(), 4, **settings)
        return module

    watched = trained(callbacks=[Evaluation(every=1)], default_root_dir=tmp_path)
    alone = trained()
    assert torch.equal(weights(watched), weights(alone))
    assert watched.progress == alone.progress
    assert torch.equal(watched.reward.scalings[0].mean, alone.reward.scalings[0].mean)


# ---------------------------------------------------------------- base


class Counting(Level):
    calls = 0

    def forward(self, samples, prompts):
        self.calls += len(prompts)
        return super().forward(samples, prompts)


def test_the_base_is_scored_once_a_run(tmp_path):
    settings, checkpointing = saving(tmp_path / "kept")
    first, second = Counting(), Counting()
    evaluation = Evaluation(metrics=[first])
    fit(evaluation, tmp_path, 2, callbacks=[evaluation, checkpointing], **settings)
    resumed = Evaluation(metrics=[second])
    fit(resumed, tmp_path, 4, callbacks=[resumed], ckpt_path=tmp_path / "kept" / "last.ckpt", **settings)
    # five prompts of the base, of which the first is compared with what is kept; five at the end
    assert (first.calls, second.calls) == (5 + 5, 1 + 5)
    assert torch.equal(scores(resumed, label="Counting").base, scores(evaluation, label="Counting").base)
    assert not torch.equal(scores(resumed, label="Counting").scores, scores(evaluation, label="Counting").scores)


@pytest.mark.parametrize(
    "change",
    [
        {"sampler": DDIM(5, eta=1.0)},
        {"sampler": DDIM(4, eta=0.5)},
        {"seed": 1},
        {"samples": 2},
        {"limit": 4},
        {"reward": Scaled()},
    ],
    ids=["steps", "eta", "seed", "samples", "limit", "reward"],
)
def test_a_base_of_other_circumstances_is_not_used(tmp_path, change):
    evaluation = Evaluation()
    fit(evaluation, tmp_path)
    of_module = {key: change.pop(key) for key in ("sampler", "reward") if key in change}
    changed, alone = Evaluation(**change), Evaluation(**change)
    fit(changed, tmp_path, module=align(**of_module))
    fit(alone, tmp_path / "alone", module=align(**of_module))
    label = of_module.get("reward", Level()).label
    assert torch.equal(scores(changed, label=label).base, scores(alone, label=label).base)


def test_a_base_of_other_weights_is_not_used(tmp_path):
    fit(Evaluation(), tmp_path)
    module = align()
    module.chain.model.bias.data += 0.3
    changed, expected = Evaluation(), direct(module, list(WORDS[:5]))
    fit(changed, tmp_path, module=module)
    torch.testing.assert_close(scores(changed).base, expected)


@pytest.mark.parametrize("value", [None, [], {"probe": 3}, {"probe": {"colors": [1, 2, 3]}, "scores": {}}])
def test_scores_of_another_version_are_computed_again(tmp_path, value):
    file = BaseScores(tmp_path, {"seed": 0})
    file.file.put(file.key, value)
    assert file.find({"colors": [0.5, 0.5, 0.5]}) is None
    file.keep({"colors": [0.5, 0.5, 0.5]}, {"a": torch.tensor([[0.1], [math.pi]])})
    assert torch.equal(file.find({"colors": [0.5, 0.50001, 0.5]})["a"], torch.tensor([[0.1], [math.pi]]))
    assert file.find({"colors": [0.5, 0.51, 0.5]}) is None


def test_test_compares_a_checkpoint_with_the_model_that_the_config_builds(tmp_path):
    settings, checkpointing = saving(tmp_path)
    module, _ = fit(Evaluation(every=None), tmp_path, callbacks=[checkpointing], **settings)
    evaluation, fresh = Evaluation(), align()
    examine(evaluation, fresh, tmp_path, tmp_path / "last.ckpt")
    assert torch.equal(weights(fresh), weights(module))
    assert evaluation.results.update == 3
    torch.testing.assert_close(scores(evaluation).scores, direct(module, list(WORDS[2:])))
    torch.testing.assert_close(scores(evaluation).base, direct(align(), list(WORDS[2:])))


def test_a_model_without_training_is_shown_alone(tmp_path, capsys):
    evaluation = Evaluation()
    examine(evaluation, align(), tmp_path)
    assert scores(evaluation).base is None
    assert "| Prompts: 6 prompts × 1 sample | score |" in " ".join(capsys.readouterr().out.split())


def test_weights_that_nobody_remembers(tmp_path):
    module, _ = fit(Evaluation(every=None), tmp_path)
    with pytest.warns(UserWarning, match="AffineModel does not remember its weights before training, so the eval"):
        examine(Evaluation(), module, tmp_path)


def test_the_average_is_evaluated(tmp_path):
    ema, evaluation = EMA(0.5), Evaluation(every=1)
    module, _ = fit(evaluation, tmp_path, callbacks=[evaluation, ema])
    with ema.applied(module):
        expected = direct(module, list(WORDS[:5]))
    torch.testing.assert_close(scores(evaluation).scores, expected)
    assert not torch.allclose(scores(evaluation).scores, direct(module, list(WORDS[:5])), atol=1e-3)


# ---------------------------------------------------------------- what it reports


@pytest.fixture
def stated(tmp_path, capsys):
    """An evaluation of two sets with everything that it left behind."""
    evaluation = Evaluation({"a": other("one", "two"), "b": other("three")}, [Level(), Scaled()], samples=2)
    _, trainer = fit(evaluation, tmp_path)
    return evaluation, trainer, tmp_path / "evaluation" / "fit", capsys.readouterr().out


def test_the_table_shows_raw_and_published_scales(stated):
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in stated[3].splitlines() if line.startswith("|")
    ]
    assert lines[0] == ["prompts", "model", "Level", "Bright2.1 x100"]
    assert [line[:2] for line in lines[2:6]] == [["a", "base"], ["a", "aligned"], ["b", "base"], ["b", "aligned"]]
    assert lines[6] == ["a: 2 prompts × 2 samples", "base", "aligned", "difference", "95 % interval"]
    assert [line[0] for line in lines[8:11]] == ["Level", "Bright2.1", "Bright2.1 x100"]
    raw, scaled = (float(lines[row][1]) for row in (9, 10))
    assert scaled == pytest.approx(100 * raw, abs=0.01)
    assert float(lines[3][3]) == pytest.approx(100 * scores(stated[0], "a", "Bright2.1").scores.mean().item(), abs=0.01)


def test_files_hold_what_the_table_shows(stated):
    evaluation, _, folder, _ = stated
    assert sorted(path.name for path in folder.iterdir()) == ["history.csv", "results.csv", "results.json"]
    content = json.loads((folder / "results.json").read_text())
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert {"update", "seed", "date", "device", "commit", "versions", "metrics", "checkpoint"} <= set(content)
    assert [(row["prompts"], row["measurement"]) for row in rows] == [
        (name, label) for name in "ab" for label in ("Level", "Bright2.1", "Bright2.1 x100")
    ]
    for row in rows:
        value = content["sets"][row["prompts"]]["results"][row["measurement"]]
        assert {key: float(row[key]) for key, number in value.items() if number is not None} == {
            key: number for key, number in value.items() if number is not None
        }
        assert value["difference"] == pytest.approx(value["aligned"] - value["base"], abs=1e-5)
        if row["prompts"] == "a":
            assert value["low"] <= value["difference"] <= value["high"]
        else:
            # one prompt gives no interval
            assert value["low"] is value["high"] is None
    assert content["sets"]["a"]["scores"]["Level"] == scores(evaluation, "a").scores.tolist()
    assert content["sets"]["a"]["prompts"] == ["one", "two"]


def test_numbers_can_be_monitored(stated):
    metrics, aligned = stated[1].callback_metrics, scores(stated[0], "a", "Bright2.1").scores.mean()
    torch.testing.assert_close(metrics["evaluation/a/Bright2.1"], aligned)
    torch.testing.assert_close(metrics["evaluation/a/Bright2.1_x100"], 100 * aligned)
    assert metrics["evaluation/a/Level_difference"] != 0


def test_a_crash_while_writing_leaves_the_results_before(stated, monkeypatch):
    import os

    evaluation, _, folder, _ = stated
    before = (folder / "results.json").read_bytes()

    def fail(*args):
        raise OSError("full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        fit(Evaluation(evaluation.prompts, [Level()]), folder.parents[1], steps=5)
    assert (folder / "results.json").read_bytes() == before


# ---------------------------------------------------------------- diversity


def test_diversity_stands_in_the_table_and_warns_of_collapse(tmp_path, capsys):
    """Every sample of this model drifts to white: samples of a prompt come together."""
    evaluation = Evaluation(samples=3, metrics=[Brightness(), Diversity(floor=0.9)])
    with pytest.warns(UserWarning, match=r"diversity of samples on Prompts has fallen to .* from the base model's"):
        fit(evaluation, tmp_path, 40, align(lr=0.05, reward=Brightness(), estimator=Replay(steps=4)))
    found = scores(evaluation, label="diversity")
    assert found.scores.mean() < 0.9 * found.base.mean()
    assert "| diversity" in capsys.readouterr().out


def test_no_warning_above_the_floor(tmp_path, recwarn):
    fit(Evaluation(samples=3, metrics=[Level(), Diversity(floor=0.01)]), tmp_path, 2)
    assert not [w for w in recwarn if "diversity" in str(w.message)]


# ---------------------------------------------------------------- mistakes


def test_mistakes_are_stated_before_anything_is_sampled(tmp_path):
    with pytest.raises(ValueError, match=r"metrics: expected labels that differ, found Level twice"):
        Evaluation(metrics=[Level(), Level()])
    with pytest.raises(ValueError, match=r"expected a metric or a display, found none"):
        Evaluation(metrics=[])
    with pytest.raises(ValueError, match=r"Evaluation: expected samples >= 1, found 0"):
        Evaluation(samples=0)
    for evaluation, message in (
        (Evaluation({"a": other()}), r"a \(Prompts\): expected prompts for 'val', found 0"),
        (
            Evaluation(metrics=[Diversity()]),
            r"diversity compares samples of one prompt: expected samples >= 2, found 1",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            fit(evaluation, tmp_path)
    with pytest.raises(ValueError, match=r"Diversity: expected floor in \[0, 1\].* found 2"):
        Diversity(floor=2)


class Pair(Level):
    def forward(self, samples, prompts):
        return super().forward(samples, prompts)[:, None].repeat(1, 2)


def test_a_reward_of_two_numbers_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the reward Pair: expected one number a sample.* \(1, 2\)"):
        fit(Evaluation(metrics=[Pair()]), tmp_path)


# ---------------------------------------------------------------- schedule


class Every(Scheduled):
    """Notes after which updates it evaluates."""

    def __init__(self, every):
        super().__init__(every)
        self.at = []

    def evaluate(self, trainer, module):
        self.at.append(trainer.global_step)


@pytest.mark.parametrize(
    ("every", "at"), [(6, [8, 12, 20]), (4, [4, 8, 12, 16, 20]), (50, [20]), (0, [20]), (None, []), (7, [8, 16, 20])]
)
def test_a_round_of_four_updates_passes_no_evaluation_by(every, at):
    """The number of updates is 4, 8, …, 20: an evaluation follows the first round that reaches a multiple."""
    callback = Every(every)
    module = align(estimator=DDPO(4), accumulate=2)
    run(module, data(), 20, callbacks=[callback])
    assert callback.at == at


# ---------------------------------------------------------------- what base scores depend on


class Shifted(Level):
    """A reward with an argument that its label does not tell."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.shift = shift

    @property
    def label(self):
        return "Level"

    def forward(self, samples, prompts):
        # the first prompt is scored alike: only the identity of the reward distinguishes the two
        return super().forward(samples, prompts) + samples.new_tensor(
            [0 if p == WORDS[0] else self.shift for p in prompts]
        )


def test_base_scores_of_another_argument_are_not_used(tmp_path):
    """Two rewards of one label in one folder: each is compared with its own base."""
    found = []
    for shift in (0.0, 1.0):
        evaluation = Evaluation(metrics=[Shifted(shift)])
        fit(evaluation, tmp_path)
        found.append(scores(evaluation).base)
    expected = torch.tensor([0.0, 1, 1, 1, 1])[:, None]
    torch.testing.assert_close(found[1] - found[0], expected)


def test_a_metric_of_unknown_code_keeps_nothing(tmp_path):
    class Local(Level):
        pass

    evaluation = Evaluation(metrics=[Local()])
    fit(evaluation, tmp_path)
    assert scores(evaluation, label="Local").base is not None
    assert not (tmp_path / "evaluation" / "base_scores.jsonl").exists()


# ---------------------------------------------------------------- what goes wrong


class Broken(AffineModel):
    """Decodes the sample of the prompt that is called *one* to NaN."""

    def encode(self, prompts):
        self.broken = [prompt == "one" for prompt in prompts]
        return super().encode(prompts)

    def decode(self, x, frames=None):
        pixels = super().decode(x)
        pixels[torch.tensor(self.broken)] = float("nan")
        return pixels


def test_a_sample_that_is_not_finite_counts_nowhere(tmp_path):
    evaluation = Evaluation(metrics=[Level(), Diversity()], samples=2, displays=[SampleGrid(2)])
    with pytest.warns(UserWarning, match=r"found NaN or infinity in sample 2 \('one'\), 3 \('one'\)"):
        examine(evaluation, align(model=Broken()), tmp_path, prompts=Prompts(test=list(WORDS[:3]), batch_size=8))
    for label in ("Level", "diversity"):
        assert scores(evaluation, label=label).number == 2
        assert scores(evaluation, label=label).scores[1].isnan().all()
    text = (tmp_path / "evaluation" / "test" / "results.json").read_text()
    assert "NaN" not in text
    assert "Level (2 of 3)" in evaluation.results.text()


def test_files_are_written_before_anything_is_printed(tmp_path, monkeypatch):
    """So a table that cannot be printed costs no result."""

    def fail(text):
        raise OSError("no terminal")

    monkeypatch.setattr("rlr.callbacks.evaluation.say", fail)
    with pytest.raises(OSError, match="no terminal"):
        fit(Evaluation(displays=[SampleGrid(1)]), tmp_path)
    assert (tmp_path / "evaluation" / "fit" / "results.json").is_file()
    assert (tmp_path / "samples" / "000003.png").is_file()


def test_a_prediction_that_is_not_finite_has_a_note_and_no_image(tmp_path):
    silent = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(**silent, callbacks=[PredictionWriter(str(tmp_path))], default_root_dir=tmp_path)
    with pytest.warns(UserWarning, match=r"found NaN or infinity in sample 1 \('one'\)"):
        trainer.predict(align(model=Broken()), datamodule=Prompts(predict=list(WORDS[:3]), batch_size=8))
    assert sorted(path.name for path in tmp_path.glob("0*")) == [
        *("00000.json", "00000.png", "00001.json", "00002.json", "00002.png")
    ]
    assert json.loads((tmp_path / "00001.json").read_text())["reward"] is None
