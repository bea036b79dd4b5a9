"""A small config, and a command line that must fail."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rlr.cli import main

CONFIG = """
seed_everything: 7
model:
  class_path: ImageAlignment
  init_args:
    model: tests.modules.toy.AffineModel
    sampler:
      class_path: DDIM
      init_args:
        steps: 4
    reward: tests.modules.toy.Level
    estimator:
      class_path: RLR
      init_args:
        length: 2
        zeroth: false
    optimization:
      lr: 0.01
    seed: ${seed_everything}
data:
  class_path: Prompts
  init_args:
    train: [one, two, three]
    val: [four, five]
    batch_size: 2
trainer:
  accelerator: cpu
  max_epochs: -1
  max_steps: 3
  enable_progress_bar: false
  enable_model_summary: false
"""


def write(folder: Path, *changes: tuple[str, str]) -> str:
    """Writes the config above with some text in it replaced, and returns its path."""
    text = CONFIG
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., str]:
    """Returns a function that writes the config above with some text in it replaced, and returns its path."""
    return partial(write, tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the config above, which tests copy; its config lies beside it."""
    folder = tmp_path_factory.mktemp("finished")
    main(["fit", f"--config={write(folder)}", root(folder)])
    return folder / "out"


@pytest.fixture
def fitted(finished: Path, tmp_path: Path) -> Path:
    """The folder of a run of the config above, for a test alone."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def refuse(tmp_path, capsys, monkeypatch):
    """Returns a function that runs a command line which must fail, and returns the one sentence it fails with."""
    monkeypatch.delenv("RLR_TRACEBACK", raising=False)

    def run(*args: str, command: str = "fit") -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([command, *args, *([] if any("root_dir" in a for a in args) else [root(tmp_path)])])
        assert exit_.value.code == 2
        stated = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(stated) == 1
        return stated[0]

    return run


def root(tmp_path: Path) -> str:
    return f"--trainer.default_root_dir={tmp_path / 'out'}"
