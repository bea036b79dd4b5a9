"""The command that writes trained weights for other programs."""

import re

import pytest
import torch

from rlr.cli import main
from rlr.models.export import hub
from tests.cli.conftest import write
from tests.cli.test_cli import fit

SD = """
model:
  class_path: ImageAlignment
  init_args:
    model: {{class_path: StableDiffusion, init_args: {{path: {path}, trainable: {{class_path: LoRA, init_args: {{rank: 2}}}}}}}}
    sampler: {{class_path: DDIM, init_args: {{steps: 4}}}}
    reward: Brightness
    estimator: {{class_path: RLR, init_args: {{length: 2, zeroth: false}}}}
    optimization: {{lr: 0.1}}
data:
  class_path: Prompts
  init_args: {{train: [a red circle], val: [a blue square], test: [a blue square, a red circle], batch_size: 2}}
trainer:
  accelerator: cpu
  max_epochs: -1
  max_steps: 2
  enable_progress_bar: false
  default_root_dir: {root}
"""

EXPORTER = "--exporter=tests.cli.exporters.Sums"


def export(config, folder, checkpoint, *further):
    return main(["export", f"--config={config}", EXPORTER, f"--folder={folder}", f"--ckpt_path={checkpoint}", *further])


def sums(path) -> dict[str, float]:
    return {name: float(value) for name, value in (line.split() for line in path.read_text().splitlines())}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run: its config, its checkpoint and its module."""
    folder = tmp_path_factory.mktemp("trained")
    path = write(folder)
    return path, folder / "out" / "last.ckpt", fit(path, folder).model


def test_the_weights_of_the_checkpoint_are_written(trained, tmp_path, capsys):
    path, checkpoint, module = trained
    capsys.readouterr()
    cli = export(path, tmp_path / "new" / "folder", checkpoint)
    (file,) = cli.exported
    assert file == tmp_path / "new" / "folder" / "sums.txt"
    assert capsys.readouterr().out.splitlines()[-1] == str(file)
    expected = {name: weight.sum().item() for name, weight in module.chain.model.trainable.items()}
    assert sums(file) == pytest.approx(expected, abs=1e-5)


def test_neither_the_estimator_nor_the_reward_nor_the_data_of_the_training_is_needed(trained, tmp_path):
    path, checkpoint, _ = trained
    here = export(path, tmp_path / "one", checkpoint).exported[0].read_text()
    # a file that is not there, a reward that fails when it is built, and another estimator
    others = ["--model.estimator=DDPO", "--model.reward=PickScore", "--model.reward.path=nowhere", "--data=PromptFile"]
    assert export(path, tmp_path / "two", checkpoint, *others, "--data.train=none.txt").exported[0].read_text() == here


def test_an_average_is_written_where_there_is_one(config, tmp_path):
    given = "  max_steps: 3\n  callbacks:\n    - class_path: EMA\n      init_args: {decay: 0.5}\n"
    path = config(("  max_steps: 3\n", given))
    fit(path, tmp_path)
    checkpoint = tmp_path / "out" / "last.ckpt"
    average = torch.load(checkpoint, weights_only=True)["callbacks"]["EMA"]["average"]
    (file,) = export(path, tmp_path / "average", checkpoint).exported
    assert sums(file) == pytest.approx({name: weight.sum().item() for name, weight in average.items()}, abs=1e-5)
    (raw,) = export(path, tmp_path / "raw", checkpoint, "--use_average=false").exported
    assert raw.read_text() != file.read_text()


def test_arguments_of_the_exporter(trained, tmp_path):
    path, checkpoint, _ = trained
    (file,) = export(path, tmp_path / "x", checkpoint, "--exporter.digits=1").exported
    assert all(len(line.split()[1].partition(".")[2]) == 1 for line in file.read_text().splitlines())


def test_mistakes(trained, refuse, tmp_path):
    path, checkpoint, _ = trained
    given = [f"--config={path}", EXPORTER]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")

    def stated(*options):
        return refuse(*given, *options, command="export")

    assert "the command needs ckpt_path, which has no default" in stated()
    assert "there is no checkpoint none.ckpt" in stated(f"--folder={tmp_path / 'f'}", "--ckpt_path=none.ckpt")
    full = stated(f"--folder={tmp_path / 'full'}", f"--ckpt_path={checkpoint}")
    assert f"folder: expected an empty or a new folder, found files in {tmp_path / 'full'}" in full
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"
    assert "there is no Exporter 'Nothing'" in refuse(f"--config={path}", "--exporter=Nothing", command="export")
    assert "Sums has no argument 'digts'; did you mean 'digits'?" in stated("--exporter.digts=3")
    other = [
        "--model.model=tests.modules.frozen.FrozenModel",
        f"--folder={tmp_path / 'f'}",
        f"--ckpt_path={checkpoint}",
    ]
    assert "does not hold the trained weights of this FrozenModel" in stated(*other)
    assert not (tmp_path / "f").exists()


@pytest.fixture(scope="module")
def run_of_sd(random_sd, tmp_path_factory):
    """A finished and evaluated run on a random Stable Diffusion: its config and its folder."""
    root = tmp_path_factory.mktemp("run")
    config = root / "sd.yaml"
    config.write_text(SD.format(path=random_sd(), root=root / "out"))
    main(["fit", f"--config={config}"])
    main(["test", f"--config={config}", f"--ckpt_path={root / 'out' / 'last.ckpt'}"])
    return config, root / "out" / "last.ckpt"


@pytest.mark.parametrize("name", ["diffusers", "kohya", "safetensors-single"])
def test_a_format_by_its_short_name_with_a_card_and_an_upload(run_of_sd, tmp_path, monkeypatch, name):
    config, checkpoint = run_of_sd
    uploaded = []
    monkeypatch.setattr(hub, "push", lambda folder, repository: uploaded.append((folder, repository)))
    folder = tmp_path / "out"
    given = [f"--config={config}", f"--ckpt_path={checkpoint}", f"--folder={folder}"]
    cli = main(["export", *given, f"--to={name}", "--push=me/mine"])
    assert cli.exported == sorted(file for file in folder.rglob("*") if file.is_file())
    assert uploaded == [(folder, "me/mine")]
    text = (folder / "README.md").read_text()
    assert "aligned with Brightness" in text
    assert "| estimator | RLR(length=2" in text
    assert "| updates | 2 |" in text
    assert re.search(r"\| Brightness +\| +[\d.]+ +\| +[\d.]+ +\| +[+−][\d.]+ \| +[+−][\d.]+ … [+−][\d.]+ \|", text)
    assert str(tmp_path.parent) not in text


def test_a_run_gets_a_folder_for_the_format_and_keeps_it(run_of_sd, capsys):
    _, checkpoint = run_of_sd
    cli = main(["export", str(checkpoint.parent), "--to=peft"])
    folder = checkpoint.parent / "export" / "peft"
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert [file.relative_to(folder).as_posix() for file in cli.exported] == names
    with pytest.raises(SystemExit):
        main(["export", str(checkpoint.parent), "--to=peft"])
    assert f"found files in {folder}" in capsys.readouterr().err


def test_a_wrong_format_or_repository_fails_before_anything_is_read(run_of_sd, refuse, tmp_path):
    config, checkpoint = run_of_sd
    given = [f"--config={config}", f"--ckpt_path={checkpoint}", f"--folder={tmp_path / 'f'}"]
    assert "set to to one of diffusers, peft, kohya" in refuse(*given, command="export")
    assert "videocrafter, got 'a1111'" in refuse(*given, "--to=a1111", command="export")
    assert "leave out one of them" in refuse(*given, "--to=kohya", EXPORTER, command="export")
    assert "push: expected the name of a repo" in refuse(*given, "--to=kohya", "--push=mine", command="export")
    assert not (tmp_path / "f").exists()
