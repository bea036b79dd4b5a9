"""The command that states what a machine has, what a config lacks, and whether it will fit."""

import re
import socket
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from shutil import copytree

import pytest
from huggingface_hub import constants

from rlr.cli import machine, main
from rlr.cli.fitting import Fit
from tests.cli.conftest import root

SD = """
model:
  class_path: ImageAlignment
  init_args:
    model:
      class_path: StableDiffusion
      init_args: {{path: {path}, text: {text}}}
    sampler: {{class_path: DDIM, init_args: {{steps: 3}}}}
    reward: {reward}
    estimator: {{class_path: RLR, init_args: {{length: 2}}}}
data: {{class_path: Prompts, init_args: {{train: [red circle, blue square], batch_size: 4}}}}
trainer: {{accelerator: cpu, enable_progress_bar: false}}
"""


@pytest.fixture(autouse=True, scope="module")
def no_network():
    """Fails a test that opens a connection."""

    def refuse(*args: object) -> None:
        raise AssertionError(f"a connection to {args}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


def examine(folder: Path, config: str, *further: str) -> tuple[int, str]:
    """Runs the command, and returns its exit status and its text."""
    status, text = 0, StringIO()
    try:
        with redirect_stdout(text):
            main(["doctor", f"--config={config}", root(folder), *further])
    except SystemExit as left:
        status = left.code
    return status, text.getvalue()


@pytest.fixture
def examined(tmp_path):
    """Returns a function that runs the command, and returns its exit status and its text."""
    return partial(examine, tmp_path)


def write(folder: Path, path: Path, text="null", reward="Brightness") -> str:
    """Writes a config of a Stable Diffusion."""
    file = folder / "sd.yaml"
    file.write_text(SD.format(path=path, text=text, reward=reward))
    return str(file)


@pytest.fixture
def sd(tmp_path, random_sd):
    """Returns a function that writes a config of a random Stable Diffusion, or of another path."""
    return lambda path=None, **settings: write(tmp_path, path or random_sd(), **settings)


@dataclass(frozen=True)
class Examined:
    """What the command left on a random Stable Diffusion."""

    status: int
    text: str
    files: set[str]


@pytest.fixture(scope="module")
def whole(random_sd, tmp_path_factory):
    """On this machine's CPU; several tests read it."""
    folder = tmp_path_factory.mktemp("whole")
    status, text = examine(folder, write(folder, random_sd()))
    return Examined(status, text, {path.name for path in folder.iterdir()})


@pytest.fixture(scope="module")
def roomy(random_sd, tmp_path_factory):
    """On a GPU of 2 GiB; several tests read it."""
    folder = tmp_path_factory.mktemp("roomy")
    status, text = examine(folder, write(folder, random_sd()), "--memory_gib=2")
    return Examined(status, text, {path.name for path in folder.iterdir()})


def needed(text: str, row: str = "in all") -> float:
    """The MiB of a row of the table of memory."""
    number, unit = re.search(rf"^  {re.escape(row)} +([\d.]+) (MiB|GiB)$", text, re.MULTILINE).groups()
    return float(number) * (1024 if unit == "GiB" else 1)


def test_without_a_config_the_machine_is_described(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "cached", lambda: {"me/model": 3 * 2**30})
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    main(["doctor"])
    text = capsys.readouterr().out
    for name, version in machine.versions().items():
        assert re.search(rf"{name} +{re.escape(version)}", text)
    for part in (
        "Devices",
        "Disk",
        "Extras",
        f"{machine.cores()} cores",
        "me/model               3 GiB",
        "0 of 8 files",
    ):
        assert part in text
    assert "make vbench-weights" in text


def test_a_config_that_has_all_and_fits_succeeds(config, examined):
    status, text = examined(config())
    assert status == 0
    assert "It fits" in text
    assert "Missing" not in text
    assert "RLR of the config" in text


def test_memory_that_is_too_small_fails_and_names_what_would_help(sd, examined, roomy):
    status, text = examined(sd(), "--memory_gib=0.79")
    assert status == 1
    assert "does not fit" in text
    assert "0.79 GiB that are free on a GPU" in text
    help_ = text[text.index("What would help") :]
    assert re.search(r"set model.memory.checkpoint_steps: true, text: OnCPU, data.batch_size: [12] together", help_)
    assert "None of this is enough" in help_
    assert roomy.status == 0
    assert "It fits" in roomy.text


def test_close_is_said_and_fails(config, examined):
    _, text = examined(config(), "--memory_gib=2")
    status, text = examined(config(), f"--memory_gib={1.02 * needed(text) / 1024}")
    assert (status, "It is close" in text) == (1, True)


@pytest.mark.parametrize(
    ("need", "word"), [(89, "fits"), (90, "fits"), (95, "close"), (100, "close"), (101, "does not fit")]
)
def test_a_tenth_of_the_memory_is_left_over(need, word):
    assert Fit(need, 100).word == word


def test_what_is_not_here_is_named_with_the_command_that_gets_it(sd, examined):
    status, text = examined(sd("someone/a-model", reward="PickScore"))
    assert status == 1
    assert "someone/a-model" in text
    assert "hf download someone/a-model" in text
    assert "hf download yuvalkirstain/PickScore_v1" in text
    assert "hf download laion/CLIP-ViT-H-14-laion2B-s32B-b79K --include" in text
    assert "not here" in text
    assert "memory is not estimated" in text


def test_the_hub_is_asked_again_afterwards(sd, examined, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    status, text = examined(sd("someone/a-model"))
    assert (status, "MISSING" in text) == (1, True)
    assert constants.HF_HUB_OFFLINE is False


def test_configurations_without_weights_are_enough_for_an_estimate(sd, examined, whole, random_sd, tmp_path):
    assert whole.status == 0
    folder = Path(copytree(random_sd(), tmp_path / "bare"))
    for file in [*folder.rglob("*.safetensors")]:
        file.unlink()
    status, bare = examined(sd(folder))
    assert status == 1
    assert f"{folder} (unet, vae, text_encoder): MISSING" in bare
    assert needed(bare) == needed(whole.text)


def test_text_encoders_on_the_cpu_are_not_on_the_device(sd, examined, roomy):
    beside = roomy.text
    _, apart = examined(sd(text="OnCPU"), "--memory_gib=2")
    _, later = examined(sd(text="OnDemand"), "--memory_gib=2")
    text = needed(beside, "text, frozen")
    assert "text, frozen" not in apart
    for other in (apart, later):
        assert needed(other) == pytest.approx(needed(beside) - text, abs=1)
    assert "In the CPU's memory" in apart


def test_an_embedding_is_not_written(sd, examined, tmp_path):
    folder = tmp_path / "embeddings"
    examined(sd(text=f"{{class_path: OnDemand, init_args: {{folder: {folder}}}}}"))
    assert not folder.exists()


def test_a_gpu_that_is_not_here_is_a_fault(config, examined, monkeypatch):
    monkeypatch.setattr(machine, "gpus", list)
    status, text = examined(config(("accelerator: cpu", "accelerator: gpu")))
    assert status == 1
    assert "torch finds no GPU here" in text


def test_the_first_gpu_counts(config, examined, monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda: [machine.Memory("H200", 140 * 2**30, 139 * 2**30)])
    status, text = examined(config(("accelerator: cpu", "accelerator: auto")))
    assert status == 0
    assert "139 GiB that are free on H200" in text
    assert "CUDA and its libraries" in text


def test_an_estimator_that_cannot_be_used_is_a_fault(config, examined):
    status, text = examined(config(("batch_size: 2", "batch_size: 1")))
    assert status == 1
    assert "two samples" in text


def test_nothing_is_written(whole, roomy):
    assert whole.files == roomy.files == {"sd.yaml"}


def test_the_config_of_a_run_is_examined(config, examined, tmp_path, capsys):
    main(["fit", f"--config={config()}", root(tmp_path)])
    capsys.readouterr()
    main(["doctor", str(tmp_path / "out")])
    assert "It fits" in capsys.readouterr().out


def test_an_extra_lacks_the_packages_that_are_not_installed(monkeypatch):
    monkeypatch.setattr(
        machine, "requires", lambda name: ["torch", "av>=16; extra == 'video'", "none-such; extra == 'video'"]
    )
    monkeypatch.setattr(machine, "metadata", lambda name: Extras())
    assert machine.extras() == {"video": ["none-such"], "serve": []}


class Extras:
    """Metadata with two extras."""

    def get_all(self, name: str) -> list[str]:
        return ["video", "serve"]


def test_a_disk_is_that_of_the_nearest_folder(tmp_path):
    assert machine.disk(tmp_path / "a" / "b").total == machine.disk(tmp_path).total > 0


def test_a_misspelled_option_is_refused(config, refuse):
    assert "memory_gib" in refuse(f"--config={config()}", "--memory_gb=3", command="doctor")
