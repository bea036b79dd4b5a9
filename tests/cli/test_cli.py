"""The command line: what it builds, what it leaves behind, and how it reports a mistake."""

import csv
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from rlr.callbacks import BestCheckpoint, Checkpointing, Evaluation, PredictionWriter, SafeCheckpointIO
from rlr.chain import Chain
from rlr.cli import main
from rlr.cli.error_messages import explain, read
from rlr.cli.run_folder import with_run
from rlr.data import Prompts
from rlr.io.config_files import ConfigError
from rlr.io.locks import claimed
from tests.cli.conftest import root
from tests.modules.toy import Level, align, run


def fit(config: str, tmp_path: Path, *further: str):
    return main(["fit", f"--config={config}", root(tmp_path), *further])


# ---------------------------------------------------------------- what it builds


def test_fit_leaves_logs_config_and_checkpoint(config, tmp_path):
    cli = fit(config(), tmp_path)
    assert isinstance(cli.trainer.logger, CSVLogger)
    assert isinstance(cli.trainer.strategy.checkpoint_io, SafeCheckpointIO)
    run = tmp_path / "out"
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert {"reward/mean", "gradient/first_order", "cosine/first_order_half_order", "val/reward"} <= set(rows[0])
    assert [row["samples"] for row in rows if row["reward/mean"]] == ["2.0", "4.0", "6.0"]
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["model"]["class_path"] == "rlr.ImageAlignment"
    assert (tmp_path / "out" / "last.ckpt").is_file()


def test_interpolation_follows_overrides(config, tmp_path):
    assert fit(config(), tmp_path).model.seed == 7
    assert fit(config(), tmp_path / "second", "--seed_everything=9").model.seed == 9


def test_several_configs_are_merge_one_another(config, tmp_path):
    over = tmp_path / "over.yaml"
    over.write_text("model: {init_args: {optimization: {lr: 0.5}, sampler: {init_args: {eta: 0.25}}}}\n")
    model = fit(config(), tmp_path, f"--config={over}").model
    assert (model.optimization.lr, model.chain.sampler.eta, model.chain.sampler.steps) == (0.5, 0.25, 4)


def test_a_saved_config_builds_the_same_run(config, tmp_path):
    one = fit(config(), tmp_path)
    two = main(["fit", str(tmp_path / "out"), f"--trainer.default_root_dir={tmp_path / 'again'}"])
    for a, b in zip(one.model.weights, two.model.weights, strict=True):
        assert torch.equal(a, b)


def test_progress_bar_shows_the_running_reward_by_its_name(config, tmp_path):
    cli = fit(config(("enable_progress_bar: false", "enable_progress_bar: true")), tmp_path)
    assert cli.trainer.progress_bar_metrics["Level"] == pytest.approx(cli.model.progress.running, abs=1e-3)


@pytest.mark.parametrize("logger", ["TensorBoardLogger", "CSVLogger"])
def test_loggers_by_short_name(config, tmp_path, logger):
    out = f"--trainer.logger.save_dir={tmp_path / 'logs'}"
    cli = fit(config(), tmp_path, f"--trainer.logger={logger}", out)
    assert type(cli.trainer.logger).__name__ == logger
    assert any((tmp_path / "logs").rglob("*"))


def test_optimiser_of_choice(config, tmp_path):
    cli = fit(
        config(), tmp_path, "--model.optimization.optimizer=torch.optim.SGD", "--model.optimization.optimizer.lr=0.25"
    )
    (group,) = cli.trainer.optimizers[0].param_groups
    assert (type(cli.trainer.optimizers[0]), group["lr"]) == (torch.optim.SGD, 0.25)


def test_validate_reports_the_reward(config, tmp_path, capsys):
    cli = main(["validate", f"--config={config()}", root(tmp_path)])
    assert 0 < cli.trainer.callback_metrics["val/reward"] < 1
    stated = capsys.readouterr().out
    assert "val/reward" in stated
    assert "val/Level" in stated


def test_test_samples_once_and_states_one_number(config, tmp_path, capsys):
    over = tmp_path / "over.yaml"
    over.write_text(
        "data: {init_args: {batch_size: 1}}\n"
        "trainer: {callbacks: [{class_path: Evaluation, init_args: {every: null, samples: 2}}]}\n"
    )
    with patch("rlr.chain.Chain.sample", autospec=True, side_effect=Chain.sample) as sampled:
        cli = main(["test", f"--config={config()}", f"--config={over}", root(tmp_path)])
    # two prompts with two samples, of a model that is its own base
    assert sum(call.args[2].shape[1] for call in sampled.call_args_list) == 4
    stated = capsys.readouterr().out
    assert "test/" not in stated
    assert stated.count("\n| Level ") == 1
    assert not [name for name in cli.trainer.callback_metrics if name.startswith("test/")]


def test_test_prints_a_table_of_its_own_reward(config, fitted, tmp_path, capsys):
    checkpoint = tmp_path / "out" / "last.ckpt"
    main(["test", f"--config={config()}", root(tmp_path), f"--ckpt_path={checkpoint}"])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert ["Prompts: 2 prompts × 1 sample", "base", "aligned", "difference", "95 % interval"] in lines
    assert [line[0] for line in lines if len(line) == 5][2] == "Level"
    content = json.loads((tmp_path / "out" / "evaluation" / "test" / "results.json").read_text())
    assert (content["update"], content["checkpoint"]) == (3, str(checkpoint))
    assert content["sets"]["Prompts"]["results"]["Level"]["difference"] != 0


def test_an_evaluation_of_the_config_takes_the_place_of_the_default(config, tmp_path):
    given = """  callbacks:
    - class_path: Evaluation
      init_args:
        every: null
        prompts: {mine: {class_path: Prompts, init_args: {test: [six]}}}
        metrics:
          - Brightness
          - {class_path: tests.modules.toy.Hard}
          - {class_path: Diversity, init_args: {features: Colors, floor: 0.25}}
        displays: [{class_path: SampleGrid, init_args: {number: 1}}]
        samples: 2
"""
    changed = config(("  max_steps: 3\n", f"  max_steps: 3\n{given}"))
    cli = main(["test", f"--config={changed}", root(tmp_path)])
    (evaluation,) = [c for c in cli.trainer.callbacks if isinstance(c, Evaluation)]
    assert [m.label for m in evaluation.results.sets["mine"]] == ["Brightness", "Hard", "diversity"]
    assert evaluation.metrics[-1].floor == 0.25
    # in training there is a preview alone
    assert Evaluation not in map(type, fit(config(), tmp_path).trainer.callbacks)


def test_an_average_that_a_second_config_leaves_out_is_stated(config, tmp_path):
    given = "  max_steps: 3\n  callbacks:\n    - class_path: EMA\n      init_args: {decay: 0.5}\n"
    path = config(("  max_steps: 3\n", given))
    fit(path, tmp_path)
    over = tmp_path / "over.yaml"
    over.write_text("trainer: {callbacks: [{class_path: Evaluation, init_args: {every: null}}]}\n")
    checkpoint = tmp_path / "out" / "last.ckpt"
    args = ["test", f"--config={path}", f"--config={over}", root(tmp_path), f"--ckpt_path={checkpoint}"]
    with pytest.warns(UserWarning, match=r"last.ckpt holds an average of the weights, and no EMA among the callbacks"):
        raw = evaluated(args)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*holds an average.*")
        averaged = evaluated([*args, "--trainer.callbacks+=EMA"])
    assert raw != averaged


def evaluated(args):
    """The score that a command of `test` finds."""
    (evaluation,) = [c for c in main(args).trainer.callbacks if isinstance(c, Evaluation)]
    return evaluation.results.metrics()["evaluation/Prompts/Level"]


def test_predict_writes_pictures_with_their_story(config, fitted, tmp_path):
    checkpoint = tmp_path / "out" / "last.ckpt"
    aligned = main(["predict", f"--config={config()}", root(tmp_path), f"--ckpt_path={checkpoint}"])
    folder = tmp_path / "out" / "predictions" / "last"
    names = ["00000.json", "00000.png", "00001.json", "00001.png", "origin.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    story = json.loads((folder / "00001.json").read_text())
    assert story["prompt"] == "five"
    assert story["checkpoint"] == str(checkpoint)
    again = aligned.model.generate(aligned.datamodule.predict_dataloader().__iter__().__next__())
    assert story["seed"] == again.seeds[1]
    assert story["reward"] == pytest.approx(again.rewards[1].item())
    assert story["scores"] == {"Level": story["reward"]}
    picture = torch.tensor(list(Image.open(folder / "00001.png").get_flattened_data())).T.view(3, 2, 2) / 255
    torch.testing.assert_close(picture, again.samples[1], atol=0.5 / 255 + 1e-6, rtol=0)


def test_default_callbacks_make_way_for_given_ones(config, tmp_path):
    given = f"""  callbacks:
    - class_path: Checkpointing
      init_args: {{every: 2, keep: true, dirpath: {tmp_path / "mine"}}}
    - class_path: PredictionWriter
"""
    cli = fit(config(("  max_steps: 3\n", f"  max_steps: 3\n{given}")), tmp_path)
    assert len([c for c in cli.trainer.callbacks if isinstance(c, Checkpointing)]) == 1
    assert len([c for c in cli.trainer.callbacks if isinstance(c, PredictionWriter)]) == 1
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["last.ckpt", "step=2.ckpt"]
    assert torch.load(tmp_path / "mine" / "last.ckpt", weights_only=True)["global_step"] == 3


def test_resume_by_the_word_last(config, tmp_path):
    whole = fit(config(), tmp_path)
    part = tmp_path / "part"
    fit(config(), part, "--trainer.max_steps=2")
    resumed = fit(config(), part, "--ckpt_path=last")
    assert resumed.model.progress == whole.model.progress
    for a, b in zip(whole.model.weights, resumed.model.weights, strict=True):
        assert torch.equal(a, b)


def test_checkpoints_of_a_config_lie_where_last_looks_for_them(config, tmp_path):
    given = ("  max_steps: 3\n", "  max_steps: 3\n  callbacks: [{class_path: Checkpointing, init_args: {every: 1}}]\n")
    fit(config(given), tmp_path, "--trainer.max_steps=2")
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.ckpt"))
    assert files == ["out/best.ckpt", "out/last.ckpt"]
    assert fit(config(given), tmp_path, "--ckpt_path=last").model.progress.updates == 3


# ---------------------------------------------------------------- the folder of a run


def test_a_second_fit_does_not_overwrite_a_run(config, fitted, tmp_path, refuse):
    before = (tmp_path / "out" / "last.ckpt").read_bytes()
    stated = refuse(f"--config={config()}", root(tmp_path))
    assert f"{tmp_path / 'out'} holds a run; add --resume to continue it, or --name NAME to begin another one" in stated
    # a checkpoint of another run does not make it the same run
    (tmp_path / "other.ckpt").write_bytes(before)
    assert "holds a run" in refuse(f"--config={config()}", root(tmp_path), f"--ckpt_path={tmp_path / 'other.ckpt'}")
    assert (tmp_path / "out" / "last.ckpt").read_bytes() == before


def test_a_config_of_the_user_is_not_overwritten(config, tmp_path, refuse):
    path = Path(config())
    before = path.read_text()
    stated = refuse(f"--config={path}", f"--trainer.default_root_dir={tmp_path}")
    assert "config.yaml is no config of a run, and the run would overwrite it; set another folder with --name" in stated
    assert path.read_text() == before


def test_a_run_resumes_with_its_folder_alone(config, fitted, tmp_path):
    whole = fit(config(("max_steps: 3", "max_steps: 5")), tmp_path / "whole")
    out = tmp_path / "out"
    resumed = main(["fit", str(out), "--resume", "--trainer.max_steps=5"])
    for a, b in zip(whole.model.weights, resumed.model.weights, strict=True):
        assert torch.equal(a, b)
    steps = [row["step"] for row in csv.DictReader((out / "metrics.csv").open()) if row["reward/mean"]]
    assert steps == ["1", "2", "3", "4", "5"]
    assert yaml.safe_load((out / "config.yaml").read_text())["trainer"]["max_steps"] == 5


def test_a_killed_run_replaces_the_rows_after_its_checkpoint(fitted, tmp_path):
    file = tmp_path / "out" / "metrics.csv"
    rows = list(csv.DictReader(file.open()))
    with file.open("w") as lost:
        writer = csv.DictWriter(lost, list(rows[0]))
        writer.writeheader()
        for row in [*rows, {**rows[0], "step": "4", "samples": "-1"}, {**rows[0], "step": "9"}]:
            writer.writerow(row)
    main(["fit", str(tmp_path / "out"), "--resume", "--trainer.max_steps=4"])
    found = [row for row in csv.DictReader(file.open()) if row["reward/mean"]]
    assert [(row["step"], row["samples"]) for row in found] == [("1", "2.0"), ("2", "4.0"), ("3", "6.0"), ("4", "8.0")]


def test_two_processes_do_not_train_in_one_folder(config, tmp_path, refuse):
    (tmp_path / "out").mkdir()
    with claimed(tmp_path / "out" / ".running"):
        stated = refuse(f"--config={config()}")
        assert stated.startswith(f"error: {tmp_path / 'out'}: another process trains in this folder")
        assert {file.name for file in (tmp_path / "out").iterdir()} == {".running"}
    assert fit(config(), tmp_path).trainer.global_step == 3


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_command_takes_a_run_alone(fitted, tmp_path, command, monkeypatch):
    out = tmp_path / "out"
    before = {file.name: file.read_bytes() for file in (out / "config.yaml", out / "metrics.csv", out / "last.ckpt")}
    moved = out.rename(tmp_path / "moved")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    cli = main([command, str(moved)])
    assert cli.model.progress.updates == 3
    assert cli.trainer.ckpt_path == str(moved / "last.ckpt")
    assert {file: (moved / file).read_bytes() for file in before} == before
    if command == "predict":
        assert len(list((moved / "predictions" / "last").glob("*.png"))) == 2
    assert not list(elsewhere.iterdir())


def test_the_best_checkpoint_of_a_run_is_the_best_validated_one(config, tmp_path):
    cli = fit(
        config(("max_steps: 3", "max_steps: 6\n  check_val_every_n_epoch: null\n  val_check_interval: 1")), tmp_path
    )
    out = tmp_path / "out"
    rows = [row for row in csv.DictReader((out / "metrics.csv").open()) if row["val/reward"]]
    best = max(rows, key=lambda row: float(row["val/reward"]))
    found = torch.load(out / "best.ckpt", weights_only=True)
    assert found["global_step"] == int(best["step"])
    again = main(["validate", str(out), "--ckpt_path=best"])
    assert again.trainer.callback_metrics["val/reward"] == pytest.approx(float(best["val/reward"]), abs=1e-6)
    assert cli.trainer.global_step == 6


def test_lower_is_better_in_the_best_checkpoint(tmp_path):
    class Lower(Level):
        higher_is_better = False

        def forward(self, samples, prompts):
            return -super().forward(samples, prompts)

    best = BestCheckpoint(str(tmp_path))
    data = Prompts(["one", "two"], val=["one"], batch_size=2)
    run(align(reward=Lower()), data, 4, callbacks=[best], enable_checkpointing=True, val_check_interval=1)
    assert (best.mode, (tmp_path / "best.ckpt").is_file()) == ("min", True)


def test_names_and_folders_on_the_command_line(tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    root = "--trainer.default_root_dir"
    with pytest.raises(ConfigError, match=r"mine: expected the folder of a run, .* found no config.yaml"):
        with_run(["test", str(out)])
    (out / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"there is no last.ckpt in"):
        with_run(["test", str(out)])
    (out / "last.ckpt").touch()
    given = [f"--config={out}/config.yaml", f"{root}={out}"]
    assert with_run(["test", str(out), "--a=1"]) == ["test", *given, f"--ckpt_path={out}/last.ckpt", "--a=1"]
    assert with_run(["test", str(out), "--ckpt_path", "x.ckpt"]) == ["test", *given, "--ckpt_path=x.ckpt"]
    assert with_run(["export", str(out)]) == ["export", given[0], f"--ckpt_path={out}/last.ckpt"]
    assert with_run(["fit", str(out), "--resume"]) == ["fit", *given, "--ckpt_path=last"]
    assert with_run(["fit", str(out), "--name", "two"]) == ["fit", *given, f"{root}=runs/two"]
    assert with_run(["fit", "--config=x.yaml", "--name=two"]) == ["fit", "--config=x.yaml", f"{root}=runs/two"]
    for name in ("", "/tmp/x", "../x"):
        with pytest.raises(ConfigError, match="--name: expected the name of a folder in runs"):
            with_run(["fit", f"--name={name}"])
    with pytest.raises(ConfigError, match="--resume: expected the command fit, got test"):
        with_run(["test", "--resume"])


def test_a_job_that_slurm_runs_again_resumes(config, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    fit(config(), tmp_path)
    assert fit(config(), tmp_path, "--trainer.max_steps=5").model.progress.updates == 5


def test_an_interrupted_run_states_the_command_that_continues_it(config, tmp_path, capsys):
    given = "  max_steps: 9\n  callbacks: [{class_path: tests.cli.interrupt.Raise, init_args: {update: 4}}]\n"
    path = config(("  max_steps: 3\n", given))
    out = tmp_path / "out"
    for error, status in (("KeyboardInterrupt", 130), ("SystemExit", None), ("OSError", 2)):
        with pytest.raises(SystemExit) as left:
            fit(path, tmp_path / error, f"--trainer.callbacks.error={error}")
        assert left.value.code == status
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == f"continue with: python train.py fit {tmp_path / error / 'out'} --resume"
        assert torch.load(tmp_path / error / "out" / "last.ckpt", weights_only=True)["global_step"] == 3
    with pytest.raises(ZeroDivisionError) as fault:
        fit(path, tmp_path, "--trainer.callbacks.error=ZeroDivisionError")
    assert fault.value.__notes__ == [f"continue with: python train.py fit {out} --resume"]


# ---------------------------------------------------------------- mistakes

WRONG = {
    "argument": (("steps: 4", "stepps: 4"), "DDIM has no argument 'stepps'; did you mean 'steps'?"),
    "class": (
        ("class_path: DDIM", "class_path: DDMI"),
        "model.sampler: there is no Sampler 'DDMI'; did you mean 'DDIM'?",
    ),
    "estimator": (("class_path: RLR", "class_path: RLRR"), "there is no Estimator 'RLRR'; did you mean 'RLR'?"),
    "module": (
        ("ImageAlignment", "ImageAlinment"),
        "there is no LightningModule 'ImageAlinment'; did you mean 'ImageAl",
    ),
    "data": (
        ("class_path: Prompts", "class_path: Promts"),
        "there is no LightningDataModule 'Promts'; did you mean 'Pro",
    ),
    "family": (
        ("class_path: DDIM", "class_path: Brightness"),
        "there is no Sampler 'Brightness'; there are Ancestral, ",
    ),
    "section": (("trainer:", "trainre:"), "there is no option 'trainre'; did you mean 'trainer'?"),
    "option": (
        ("max_steps: 3", "max_stps: 3"),
        "there is no option 'trainer.max_stps'; did you mean 'trainer.max_steps'?",
    ),
    "type": (
        ("lr: 0.01", "lr: fast"),
        "model.optimization.lr: expected float, got 'fast'; correct it in the config",
    ),
    "required": (("    reward: tests.modules.toy.Level\n", ""), "ImageAlignment needs reward, which has no default"),
    "syntax": (("[four, five]", "[four, five"), "config.yaml: expected YAML: did not find expected ',' or ']' at line"),
    "no noise": (
        ("steps: 4", "steps: 4\n        eta: 0.0"),
        "needs noise in step 2, and the sampler DDIM has no noise",
    ),
    "length": (("length: 2", "length: 9"), "within the chain of 4 steps, found 10 steps; set length to 3 at most"),
    "alone": (("batch_size: 2", "batch_size: 1"), "a leave-one-out baseline needs two samples"),
    "frozen": (
        ("tests.modules.toy.AffineModel", "tests.modules.frozen.FrozenModel"),
        "has no trainable weights; add a LoRA to it",
    ),
    "black box": (("toy.Level", "toy.Hard"), "Hard has no gradient; use a differentiable reward"),
    "no base": (
        ("model:\n  class_path: ImageAlignment", "model:\n  base: none.yaml\n  class_path: ImageAlignment"),
        "none.yaml, which another config names as its base; check the name",
    ),
    "no file": (
        (
            "Prompts\n  init_args:\n    train: [one, two, three]\n    val: [four, five]",
            "PromptFile\n  init_args:\n    train: none.txt",
        ),
        "there is no prompt file none.txt",
    ),
    "no prompts": (
        ("    train: [one, two, three]\n", ""),
        "Prompts has no prompts for 'train'; set data.init_args.train",
    ),
    "clipping": (
        ("max_steps: 3", "max_steps: 3\n  gradient_clip_val: 1.0"),
        "model.init_args.optimization.clip_norm to 1.0",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_in_the_config_is_one_sentence(case, config, refuse):
    change, expected = WRONG[case]
    assert expected in refuse(f"--config={config(change)}")


def test_mistakes_on_the_command_line(config, refuse, tmp_path):
    path = f"--config={config()}"
    assert "there is no option 'modle'; did you mean 'model'?" in refuse(path, "--modle=3")
    assert "DDIM has no argument 'etta'; did you mean 'eta'?" in refuse(path, "--model.sampler.etta=1")
    assert f"there is no config {tmp_path}/none.yaml" in refuse(f"--config={tmp_path}/none.yaml")
    assert "there is no checkpoint none.ckpt" in refuse(path, "--ckpt_path=none.ckpt")
    assert "--resume: there is no last.ckpt in" in refuse(path, "--ckpt_path=last")


def test_an_output_folder_that_cannot_be_written_to(config, refuse, tmp_path):
    (tmp_path / "file").write_text("in the way")
    stated = refuse(f"--config={config()}", f"--trainer.default_root_dir={tmp_path}/file/out")
    assert f"the output folder {tmp_path}/file/out cannot be written to (Not a directory)" in stated


def test_an_output_folder_with_an_impossible_name(config, refuse):
    assert "cannot be written to (embedded null byte)" in refuse(
        f"--config={config()}", "--trainer.default_root_dir=a\0b"
    )


def test_no_output_folder_is_the_default_one(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = config(("  max_steps: 3\n", "  max_steps: 1\n  default_root_dir: null\n"))
    main(["fit", f"--config={path}"])
    assert (tmp_path / "runs" / Path(path).stem).is_dir()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${modle.seed}", "model.seed: there is no key 'modle.seed' to interpolate"),
        ("${nope:1}", "model.seed: there is no resolver 'nope'"),
        ("${.seed}", "model.seed: the interpolations of this key lead back to it"),
    ],
)
def test_an_interpolation_that_leads_nowhere(text, expected, config, refuse):
    assert expected in refuse(f"--config={config(('seed: ${seed_everything}', f'seed: {text}'))}")


def test_the_traceback_is_there_for_who_asks(config, tmp_path, monkeypatch):
    monkeypatch.setenv("RLR_TRACEBACK", "1")
    with pytest.raises(ValueError, match="within the chain"):
        fit(config(("length: 2", "length: 9")), tmp_path)


def test_a_fault_of_the_program_keeps_its_traceback(config, tmp_path):
    with pytest.raises(ZeroDivisionError):
        fit(config(("toy.AffineModel", "faulty.FaultyModel")), tmp_path)


def test_a_fault_of_a_reward_is_one_sentence_with_its_line(config, refuse):
    stated = refuse(f"--config={config(('toy.Level', 'faulty.Faulty'))}")
    assert stated.startswith("error: the reward Faulty: expected scores, got KeyError: ")
    assert re.search(r"\(\S+faulty\.py, line 15\); correct the reward, or set RLR_TRACEBACK=1", stated)


PROMPTS = """  class_path: Prompts
  init_args:
    train: [one, two, three]
    val: [four, five]
    batch_size: 2
"""


@pytest.mark.parametrize(
    ("command", "data", "stated"),
    [
        ("test", {"class_path": "Prompts", "init_args": {"train": ["one"]}}, "Prompts has no prompts for 'test'; set"),
        ("predict", {"class_path": "Prompts", "init_args": {"train": ["one"]}}, "Prompts has no prompts for 'predict'"),
        (
            "validate",
            {"class_path": "Prompts", "init_args": {"test": ["one"]}},
            "Prompts has no prompts for 'val'; set",
        ),
        ("fit", {"class_path": "Prompts", "init_args": {"val": ["one"]}}, "Prompts has no prompts for 'train'; set"),
        ("predict", {"class_path": "PromptFile", "init_args": {"predict": "p.csv", "column": "text"}}, "'text'"),
        (
            "predict",
            {"class_path": "PromptFile", "init_args": {"predict": "none.csv"}},
            "there is no prompt file none.csv",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value["class_path"],
)
def test_prompts_are_checked_before_a_model_is_loaded(command, data, stated, config, refuse, tmp_path, monkeypatch):
    path = config((PROMPTS, f"  {json.dumps(data)}\n"), ("toy.AffineModel", "faulty.Unloadable"))
    (tmp_path / "p.csv").write_text("prompt\none\n")
    monkeypatch.chdir(tmp_path)
    assert stated in refuse(f"--config={path}", command=command)


def test_a_checkpoint_is_looked_for_before_a_model_is_loaded(config, refuse):
    path = config(("toy.AffineModel", "faulty.Unloadable"))
    assert "there is no checkpoint none.ckpt; check --ckpt_path" in refuse(
        f"--config={path}", "--ckpt_path=none.ckpt", command="predict"
    )


def test_a_monitor_that_is_not_logged_is_one_sentence(config, refuse):
    given = "  max_steps: 3\n  callbacks: [{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: val/x}}]\n"
    path = config(("  max_steps: 3\n", given))
    assert "Early stopping conditioned on metric `val/x` which is not available" in refuse(f"--config={path}")


def test_the_way_down_an_indented_message():
    message = """Parser key "model":
  Does not validate against any of the Union subtypes
  Errors:
    - Problem with given class_path 'rlr.modules.ImageAlignment':
        Parser key "sampler":
          Problem with given class_path 'rlr.samplers.DDIM':
            Option 'stepps' is not accepted
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>"""
    assert read(message) == ("model.sampler", "rlr.samplers.DDIM", "Option 'stepps' is not accepted")
    assert explain(message, []) == "model.sampler: DDIM has no argument 'stepps'; leave it out"
    assert explain("Something\n  new", []) == "Something"
    lost = explain("Parser key \"model.reward\":\n  No module named 'mine'", [])
    assert lost.startswith(
        "model.reward: expected a module that Python can import, found none named 'mine'; put its file"
    )


# ---------------------------------------------------------------- how it ends


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("kind", "kept"), [("Terminate", 1), ("TerminateFinalizer", 2)])
def test_sigterm_ends_a_run_with_its_status_and_says_how_it_continues(config, tmp_path, capsys, kind, kept):
    """At once, in the middle of a batch that a resumed run repeats; from a finalizer, before the next batch."""
    given = f"  max_steps: 3\n  callbacks: [{{class_path: tests.cli.interrupt.{kind}, init_args: {{update: 2}}}}]\n"
    with pytest.raises(SystemExit) as exit_:
        fit(config(("  max_steps: 3\n", given)), tmp_path)
    assert exit_.value.code == 143
    assert torch.load(tmp_path / "out" / "last.ckpt", weights_only=True)["global_step"] == kept
    assert capsys.readouterr().err.splitlines()[-1] == f"continue with: python train.py fit {tmp_path / 'out'} --resume"


def test_a_home_folder_is_expanded_in_configs_and_options(config, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    path = config(("  max_steps: 3\n", "  max_steps: 1\n  default_root_dir: ~/in_config\n"))
    main(["fit", f"--config={path}"])
    main(["fit", f"--config={path}", "--trainer.default_root_dir=~/in_option"])
    main(["fit", f"--config={path}", "--trainer.default_root_dir", "~/next"])
    assert sorted(item.name for item in (tmp_path / "home").iterdir()) == ["in_config", "in_option", "next"]
    assert not (tmp_path / "~").exists()


def test_settings_are_checked_after_interpolation(config, refuse):
    path = config(("seed: ${seed_everything}", "seed: ${oc.decode:'-3'}"))
    assert "model.seed: expected a seed from 0 to 4294967295, got -3" in refuse(f"--config={path}")


@pytest.mark.slow
def test_a_finished_command_succeeds_though_nobody_reads_its_table(config, tmp_path):
    path = config(("max_steps: 3", "max_steps: 1"))
    reader, writer = os.pipe()
    os.close(reader)
    root_folder = Path(__file__).parents[2]
    command = [sys.executable, str(root_folder / "train.py"), "test", f"--config={path}", root(tmp_path)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=root_folder)
    assert done.returncode == 0, done.stderr.decode()[-500:]
    assert (tmp_path / "out" / "evaluation" / "test" / "results.json").is_file()
