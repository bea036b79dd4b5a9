"""A sweep is every combination of its values, each in a folder of its own, and continues where it was left."""

from pathlib import Path

import pytest
import yaml

from rlr.cli import main
from rlr.cli.run_folder import with_run
from rlr.cli.static_check import check_command
from rlr.cli.sweep import main as sweep
from rlr.cli.sweep import run_all, trials
from rlr.io.config_files import ConfigError
from tests.test_configs import ROOT

SWEEPS = sorted((ROOT / "configs" / "sweep").glob("*.yaml"))


def write(folder: Path, **changes: object) -> Path:
    content = {
        "program": "train.py",
        "parameters": {"model.optimization.lr": {"values": [0.1, 0.2]}, "seed_everything": {"value": 3}},
        "command": ["${env}", "${interpreter}", "${program}", "fit", "--config=config.yaml", "${args}"],
    }
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({**content, **changes}))
    return file


@pytest.mark.parametrize("file", SWEEPS, ids=[file.stem for file in SWEEPS])
def test_every_run_of_a_shipped_sweep_is_a_valid_command(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = trials(file)
    parameters = yaml.safe_load(file.read_text())["parameters"]
    number = 1
    for given in parameters.values():
        number *= len(given["values"])
    assert len({trial.folder for trial in found}) == len(found) == number >= 2
    assert set(parameters) == {"model.optimization.lr", "model.estimator", "seed_everything"}
    for trial in found:
        assert trial.command[0] == "train.py"
        check_command(with_run(trial.command[1:]))


def test_a_run_gets_its_values_and_a_folder(tmp_path):
    first, second = trials(write(tmp_path), ["--trainer.max_steps=5"])
    assert first.command == [
        *("train.py", "fit", "--config=config.yaml", "--model.optimization.lr=0.1", "--seed_everything=3"),
        *("--name=mine/lr=0.1,seed=3", "--trainer.max_steps=5"),
    ]
    assert second.folder == Path("runs/mine/lr=0.2,seed=3")


def test_the_loop_trains_resumes_and_skips(config, tmp_path, monkeypatch):
    path = config(("max_steps: 3", "max_steps: 1"))
    monkeypatch.chdir(tmp_path)
    waiting = trials(write(tmp_path))
    assert path == str(tmp_path / "config.yaml")
    lines = []

    def execute(line):
        lines.append(line)
        # the second run fails after it has trained, and is resumed
        main(list(line[1:]))
        return 1 if len(lines) == 2 else 0

    failed = run_all(waiting, execute)
    assert failed == [waiting[1]]
    assert [trial.finished for trial in waiting] == [True, False]
    weights = [
        yaml.safe_load((t.folder / "config.yaml").read_text())["model"]["init_args"]["optimization"]["lr"]
        for t in waiting
    ]
    assert weights == [0.1, 0.2]
    assert run_all(waiting, execute) == []
    assert [line[-1] == "--resume" for line in lines] == [False, False, True]
    assert run_all(waiting, execute) == []
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": {"x": {"max": 1, "min": 0}}}, "expected values of x, found max, min"),
        ({"command": ["fit"]}, "found no ${args} in command"),
    ],
)
def test_what_is_no_grid_is_refused(tmp_path, changes, words, capsys):
    file = write(tmp_path, **changes)
    with pytest.raises(ConfigError, match=r"mine\.yaml: expected"):
        trials(file)
    assert sweep([str(file)]) == 2
    assert words in capsys.readouterr().err


def test_an_agent_of_wandb_gives_each_run_a_folder(monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    assert with_run(["fit", "--config=a.yaml"])[-1] == "--trainer.default_root_dir=runs/sweep-s1/r1"
    assert with_run(["fit", "--config=a.yaml", "--name=b"])[-1] == "--trainer.default_root_dir=runs/b"
    assert with_run(["test", "--config=a.yaml"]) == ["test", "--config=a.yaml"]
