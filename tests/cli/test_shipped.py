"""Shipped configs by name, and the console command."""

import multiprocessing
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from rlr.cli.shipped import folder, shipped, with_shipped
from rlr.io.config_files import ConfigError

ROOT = Path(__file__).parents[2]


def test_every_config_has_a_name_and_images_come_first():
    assert folder() == ROOT / "configs"
    assert shipped("tiny_rlr") == ROOT / "configs" / "image" / "tiny_rlr.yaml"
    assert shipped("video/tiny_rlr") == ROOT / "configs" / "video" / "tiny_rlr.yaml"
    assert shipped("vc2_rlr_aes") == ROOT / "configs" / "video" / "vc2_rlr_aes.yaml"
    for file in folder().rglob("*.yaml"):
        assert shipped(str(file.relative_to(folder()).with_suffix(""))) == file


def test_a_name_stands_wherever_a_config_may():
    path = str(shipped("tiny_rlr"))
    given = ["fit", "@tiny_rlr", "--config", "@tiny_rlr", "--config=@tiny_rlr", "-c", "@tiny_rlr", "--model.reward=@x"]
    expected = ["fit", "--config", path, "--config", path, f"--config={path}", "-c", path, "--model.reward=@x"]
    assert with_shipped(given) == expected


def test_an_unknown_name_is_a_sentence():
    with pytest.raises(ConfigError, match="there is no shipped config @tiny_rl; did you mean 'tiny_rlr'"):
        with_shipped(["fit", "@tiny_rl"])


ARGUMENTS = ["fit", "@tiny_rlr", "--print_config"]


def run_script(folder: Path) -> None:
    """What ``python train.py`` does in a folder."""
    os.chdir(folder)
    sys.argv = [str(ROOT / "train.py"), *ARGUMENTS]
    sys.path.insert(0, str(ROOT))  # as Python does with the folder of a script
    runpy.run_module("train", run_name="__main__", alter_sys=True)


def run_package(folder: Path) -> None:
    """What ``python -m rlr`` does in a folder."""
    os.chdir(folder)
    sys.argv = ["rlr", *ARGUMENTS]
    runpy.run_module("rlr", run_name="__main__", alter_sys=True)


@pytest.mark.parametrize("program", [run_script, run_package])
def test_a_program_runs_from_anywhere_and_exits_with_zero(tmp_path, capfd, program):
    # a process that has imported torch already
    child = multiprocessing.get_context("fork").Process(target=program, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert "HalfOrderRLR" in capfd.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_script_needs_no_process_that_has_imported_anything(tmp_path):
    call = [sys.executable, str(ROOT / "train.py"), *ARGUMENTS]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "HalfOrderRLR" in done.stdout


def test_the_console_command_returns_nothing(monkeypatch):
    # a script exits with what its function returns
    from rlr import __main__

    monkeypatch.setattr(__main__, "main", lambda: object())
    assert __main__.console() is None
