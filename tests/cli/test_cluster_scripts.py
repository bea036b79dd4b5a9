"""The scripts that start a job on several machines, with programs in the place of SLURM and torchrun that note what they get."""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
SLURM = {"SLURM_JOB_ID": "417", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "8"}
FURTHER = ["--data.batch_size=4", "--model.reward", "two words", "--trainer.callbacks=[{a: *}]"]
"""Options of the user, of which one has a blank and one has characters that a shell expands."""

Stub = Callable[[str, int], None]
Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    """Returns a function that writes a program which notes its arguments, a line each, and exits with a status."""
    (tmp_path / "bin").mkdir()

    def write(name: str, status: int) -> None:
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>"{tmp_path / name}"\nexit {status}\n')
        program.chmod(0o755)

    return write


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Returns a function that runs a script where the programs of this test come first, in an environment of its own."""

    def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        places = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.defpath}", **environment}
        call = ["bash", str(SCRIPTS / script), *arguments]
        return subprocess.run(call, cwd=tmp_path, env=places, capture_output=True, text=True, check=False)

    return run


def noted(folder: Path, name: str) -> Sequence[str] | None:
    """The arguments that a program got; None if nothing started it."""
    return (folder / name).read_text().splitlines() if (folder / name).exists() else None


# ---------------------------------------------------------------- SLURM


@pytest.mark.parametrize(
    ("status", "requeued"), [(143, ["requeue", "417"]), (0, None), (1, None), (2, None), (137, None)]
)
def test_slurm_queues_a_job_again_after_a_preemption_alone(
    status: int, requeued: Sequence[str] | None, stub: Stub, start: Start, tmp_path: Path
) -> None:
    """And hands the status of the training on."""
    stub("srun", status)
    stub("scontrol", 0)
    ended = start("slurm.sh", "a.yaml", "mine", **SLURM)
    assert (ended.returncode, ended.stderr) == (status, "")
    assert noted(tmp_path, "scontrol") == requeued


def test_slurm_keeps_the_status_of_a_job_that_cannot_be_queued_again(stub: Stub, start: Start, tmp_path: Path) -> None:
    stub("srun", 143)
    stub("scontrol", 1)
    assert start("slurm.sh", "a.yaml", "mine", **SLURM).returncode == 143
    assert noted(tmp_path, "scontrol") == ["requeue", "417"]


def test_slurm_trains_on_all_nodes_with_the_options_of_the_user(stub: Stub, start: Start, tmp_path: Path) -> None:
    stub("srun", 0)
    start("slurm.sh", "my configs/a.yaml", "mine", *FURTHER, **SLURM)
    alive, *command = noted(tmp_path, "srun") or []
    # the first process that ends must not take the others with it
    assert alive == "--kill-on-bad-exit=0"
    assert command == [
        *("python", "train.py", "fit", "--config", "my configs/a.yaml", "--name", "mine"),
        *("--trainer.num_nodes", "2", "--trainer.devices", "8", "--trainer.strategy", "ddp", *FURTHER),
    ]


@pytest.mark.parametrize(("given", "missing"), [((), "the config"), (("a.yaml",), "the name of the run")])
def test_slurm_says_what_is_missing(
    given: Sequence[str], missing: str, stub: Stub, start: Start, tmp_path: Path
) -> None:
    stub("srun", 0)
    ended = start("slurm.sh", *given, **SLURM)
    assert ended.returncode != 0
    assert missing in ended.stderr
    assert noted(tmp_path, "srun") is None


def test_slurm_sends_the_signal_that_ends_a_run_and_may_queue_the_job_again() -> None:
    options = [
        line.split()[1] for line in (SCRIPTS / "slurm.sh").read_text().splitlines() if line.startswith("#SBATCH")
    ]
    assert {"--signal=TERM@120", "--requeue", "--open-mode=append"} <= set(options)


# ---------------------------------------------------------------- torchrun


def test_torchrun_trains_on_all_nodes_with_the_options_of_the_user(stub: Stub, start: Start, tmp_path: Path) -> None:
    stub("torchrun", 143)
    places = {"NODES": "2", "GPUS": "8", "HOST": "10.0.0.1", "CONFIG": "my configs/a.yaml", "NAME": "mine"}
    assert start("torchrun.sh", *FURTHER, **places).returncode == 143
    assert noted(tmp_path, "torchrun") == [
        *("--nnodes", "2", "--nproc_per_node", "8"),
        *("--rdzv_id", "mine", "--rdzv_backend", "c10d", "--rdzv_endpoint", "10.0.0.1:29400"),
        *("train.py", "fit", "--config", "my configs/a.yaml", "--name", "mine"),
        *("--trainer.num_nodes", "2", "--trainer.devices", "8", "--trainer.strategy", "ddp", *FURTHER),
    ]


def test_torchrun_has_one_process_of_this_machine_by_default(stub: Stub, start: Start, tmp_path: Path) -> None:
    stub("torchrun", 0)
    assert start("torchrun.sh", CONFIG="a.yaml", NAME="mine", PORT="4000").returncode == 0
    found = noted(tmp_path, "torchrun") or []
    assert found[:4] == ["--nnodes", "1", "--nproc_per_node", "1"]
    assert "127.0.0.1:4000" in found


@pytest.mark.parametrize("missing", ["CONFIG", "NAME"])
def test_torchrun_says_what_is_missing(missing: str, stub: Stub, start: Start, tmp_path: Path) -> None:
    stub("torchrun", 0)
    given = {name: "mine" for name in ("CONFIG", "NAME") if name != missing}
    ended = start("torchrun.sh", **given)
    assert ended.returncode != 0
    assert missing in ended.stderr
    assert noted(tmp_path, "torchrun") is None
