"""The folder of a run: how a command line names it, and what in it is never overwritten."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlr.io.config_files import ConfigError
from rlr.io.locks import claimed

RUNS = "runs"
"""The folder of all runs."""
CONFIG, LAST, BEST = "config.yaml", "last.ckpt", "best.ckpt"
"""The files of a run: the config of its ``fit``, the last checkpoint, and the one with the best validation reward."""
RUNNING = ".running"
"""An empty file that a process which trains in the folder holds a lock on."""
ROOT = "--trainer.default_root_dir"
CHECKPOINT = "--ckpt_path"
HEADER = "# The resolved config of a `fit`; the run writes it again when it is resumed.\n"
"""The first line of the config of a run, by which it differs from a config of the user."""


@dataclass(frozen=True)
class Run:
    """The folder of a run.

    Args:
        folder: The folder.
    """

    folder: Path

    @staticmethod
    def of(root: str | None, configs: Sequence[str]) -> "Run":
        """Returns the run of a command.

        Args:
            root: The ``trainer.default_root_dir`` of its config.
            configs: Its config files; where no other folder is set, the first names the folder in ``runs``.
        """
        root = root or RUNS
        return Run(Path(root, Path(configs[0]).stem) if root == RUNS and configs else Path(root))

    @property
    def config(self) -> Path:
        """The config of the ``fit``.

        Raises:
            ConfigError: If there is no such config.
        """
        file = self.folder / CONFIG
        if self.folder.is_file():
            raise ConfigError(
                f"{self.folder}: expected the folder of a run, found a file; name a config with --config FILE"
            )
        if not file.is_file():
            raise ConfigError(
                f"{self.folder}: expected the folder of a run, with the {CONFIG} that `fit` writes, found no {CONFIG}; name "
                "the folder of a run, or set --config FILE"
            )
        return file

    @property
    def begun(self) -> bool:
        """Whether it holds what a new ``fit`` would overwrite: a checkpoint."""
        return any(self.folder.glob("*.ckpt"))

    def check_free(self, checkpoint: str | None) -> None:
        """Raises a ``ConfigError`` if a ``fit`` would overwrite a run, or a config of the user.

        Args:
            checkpoint: The checkpoint that the ``fit`` resumes from; None begins a new run.
        """
        config = self.folder / CONFIG
        if config.is_file() and not config.read_text(encoding="utf-8", errors="replace").startswith(HEADER):
            raise ConfigError(
                f"{config} is no config of a run, and the run would overwrite it; set another folder with --name NAME"
            )
        resumed = checkpoint in ("last", "hpc") or (
            checkpoint and Path(checkpoint).resolve().parent == self.folder.resolve()
        )
        if self.begun and not resumed:
            raise ConfigError(
                f"{self.folder} holds a run; add --resume to continue it, or --name NAME to begin another one in {RUNS}/NAME"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, no other process trains in the folder; a killed process holds nothing.

        Raises:
            ConfigError: If another process does.
        """
        with claimed(self.folder / RUNNING) as mine:
            if not mine:
                raise ConfigError(
                    f"{self.folder}: another process trains in this folder, and two would overwrite each other's files; wait "
                    "until it has ended, or begin another run with --name NAME"
                )
            yield

    def checkpoint(self, name: str = LAST) -> Path:
        """Returns a checkpoint of the run.

        Raises:
            ConfigError: If it does not exist.
        """
        file = self.folder / name
        if not file.is_file():
            raise ConfigError(f"there is no {name} in {self.folder}; set {CHECKPOINT} to a checkpoint")
        return file

    @property
    def resuming(self) -> str:
        """The command that continues the run."""
        return f"python train.py fit {self.folder} --resume"


def with_run(arguments: Sequence[str]) -> list[str]:
    """Returns a command line with the folder of a run, ``--name`` and ``--resume`` replaced by the options they stand for.

    ``test runs/mine`` becomes ``test --config runs/mine/config.yaml --trainer.default_root_dir=runs/mine
    --ckpt_path=runs/mine/last.ckpt``; ``--name mine`` becomes ``--trainer.default_root_dir=runs/mine``; ``--resume`` becomes
    ``--ckpt_path=last``.

    Raises:
        ConfigError: If the folder holds no run, or an option cannot be used.
    """
    command, *rest = arguments
    folder = rest.pop(0) if rest and not rest[0].startswith("-") else None
    rest, name = _without(rest, "--name")
    resumed = "--resume" in rest
    rest = [word for word in rest if word != "--resume"]
    if resumed and command != "fit":
        raise ConfigError(f"--resume: expected the command fit, got {command}; leave it out")
    if folder is not None:
        rest = _of_folder(command, Run(Path(folder)), rest, resumed)
    if name is None and command == "fit" and folder is None and not any(word.startswith(ROOT) for word in rest):
        name = _of_agent()
        resumed = resumed or (name is not None and Run(_place(name)).begun)
    if name is not None:
        rest.append(f"{ROOT}={_place(name)}")
    return [command, *rest, *([f"{CHECKPOINT}=last"] if resumed else [])]


def _of_folder(command: str, run: Run, rest: list[str], resumed: bool) -> list[str]:
    """Returns the options of a command on a run."""
    config = run.config
    rest, checkpoint = _without(rest, CHECKPOINT)
    if checkpoint in ("last", "best"):
        checkpoint = str(run.checkpoint(f"{checkpoint}.ckpt"))
    elif checkpoint is None and command not in ("fit", "doctor"):
        checkpoint = str(run.checkpoint())
    given = [f"{CHECKPOINT}={checkpoint}"] if checkpoint is not None else []
    place = [] if command == "export" else [f"{ROOT}={run.folder}"]
    return [f"--config={config}", *place, *given, *rest]


def _without(words: Sequence[str], option: str) -> tuple[list[str], str | None]:
    """Returns the words without an option, and its value."""
    rest, value = [], None
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word == option:
            if not waiting:
                raise ConfigError(f"{option}: expected a value, found nothing; name one")
            value = waiting.pop(0)
        elif word.startswith(f"{option}="):
            value = word.partition("=")[2]
        else:
            rest.append(word)
    return rest, value


def _of_agent() -> str | None:
    """Returns the name of a run that an agent of a sweep of W&B has started; the agent starts it again after a pre-emption."""
    sweep, run = os.environ.get("WANDB_SWEEP_ID"), os.environ.get("WANDB_RUN_ID")
    return f"sweep-{sweep}/{run}" if sweep and run else None


def _place(name: str) -> Path:
    """Returns the folder of a new run."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ConfigError(
            f"--name: expected the name of a folder in {RUNS}, got {name!r}; set {ROOT} for another place"
        )
    return Path(RUNS, name)


def requeued() -> bool:
    """Whether SLURM runs this job again, after a pre-emption."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")
