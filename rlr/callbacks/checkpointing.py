"""Checkpoints that a crash, a full disk or a wrong file cannot damage."""

import os
import time
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn

from rlr.callbacks.metrics_file import write_row
from rlr.distributed import is_split
from rlr.io.atomic import unwritten
from rlr.io.file_kind import check_file, is_zip
from rlr.io.weights import read_archive, save_whole
from rlr.models.swapped import swapped
from rlr.modules.alignment import Alignment
from rlr.modules.checkpoint import REMEDY, check_like, check_training_state
from rlr.modules.progress import passed

RESUMED = ("callbacks", "loops", "optimizer_states", "lr_schedulers", "epoch", "global_step")
"""What a checkpoint of a training holds besides weights."""
LAUNCHER = ".temp.ckpt"
"""The file of bare weights that Lightning's forked and spawned processes hand to their parent."""


MOST_KEPT = 64_000_000
"""The most trained weights of which a copy is kept for the case of an interrupt; with Adam's moments, 768 MB in float32."""


class Lost(dict[str, Any]):
    """Stands for the states of callbacks in a checkpoint that has lost them."""


class OnWrite(ABC):
    """A callback that follows the checkpoints that are written; a copy of the state in the main memory is not written."""

    @abstractmethod
    def on_write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called on the first process when a checkpoint has been written, with the weights that it holds."""


def written(trainer: Trainer) -> None:
    """Calls the callbacks that follow checkpoints."""
    for callback in trainer.callbacks if trainer.is_global_zero else ():  # type: ignore[attr-defined]
        if isinstance(callback, OnWrite):
            callback.on_write(trainer, trainer.lightning_module)


class Checkpointing(ModelCheckpoint):
    r"""Keeps ``last.ckpt``, rewritten every ``every`` updates or ``minutes``, when training ends, and when it is interrupted.

    If one batch makes several updates, the file is written after the first batch that reaches the next multiple of ``every``.

    An update with a gradient that is not finite changes no weight, so the last checkpoint is always a good one.

    **Interrupts.** After each batch the state of the run is copied to the main memory: trained weights, optimizer, averages,
    generators. If training ends by an exception, Ctrl-C or SIGTERM, in the middle of an update too, that state is written, and a
    resumed run repeats the interrupted batch to the bit. A run of more than 64 million trained weights, and one whose weights are
    spread over processes, keeps no copy; it resumes from the last file.

    Args:
        every: The number of updates between two writes.
        dirpath: The folder, by default ``trainer.default_root_dir``.
        keep: Whether to keep one file for each write, ``step=….ckpt``, too.
        minutes: The largest time between two writes, > 0.

    Raises:
        FileNotFoundError: If ``ckpt_path="last"`` is asked for and there is no last checkpoint in the folder.
    """

    def __init__(self, every: int = 50, dirpath: str | None = None, keep: bool = False, minutes: float = 10.0) -> None:
        if every < 1:
            raise ValueError(f"Checkpointing: expected every >= 1, got {every}")
        if not minutes > 0:
            raise ValueError(f"Checkpointing: expected minutes > 0, got {minutes}")
        super().__init__(
            dirpath,
            filename="{step}",
            save_last=True,
            save_top_k=-1 if keep else 0,
            every_n_train_steps=every,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self.seconds = 60 * minutes
        self.clock = time.monotonic
        self._updates = 0
        self._written = 0.0
        self._keeps = False
        self._kept: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._set_folder(trainer)
        super().setup(trainer, pl_module, stage)

    def _set_folder(self, trainer: Trainer) -> None:
        # Lightning's default has the version of the logger in it, which is another one in the run that resumes
        if self.dirpath is None:
            self.dirpath = os.path.realpath(trainer.default_root_dir)

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """Returns the last checkpoints; called for ``ckpt_path="last"``, before :meth:`setup`."""
        self._set_folder(trainer)
        found = super()._find_last_checkpoints(trainer)
        if not found and not any(self._last_of(other, trainer) for other in trainer.checkpoint_callbacks):
            raise FileNotFoundError(_without_last(Path(str(self.dirpath)), Path(trainer.default_root_dir)))
        return found

    @staticmethod
    def _last_of(callback: Any, trainer: Trainer) -> set[str]:
        if isinstance(callback, Checkpointing):
            callback._set_folder(trainer)
        # the method of the base class, which does not raise
        return (
            ModelCheckpoint._find_last_checkpoints(callback, trainer)
            if isinstance(callback, ModelCheckpoint)
            else set()
        )

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Compares what the checkpoint holds for Lightning's loops and for callbacks with what they hold now.

        Raises:
            ValueError: If a value is missing or of another type.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        origin = str(trainer.ckpt_path or "the checkpoint")
        missing = [name for name in RESUMED if name not in checkpoint or isinstance(checkpoint[name], Lost)]
        if missing:
            raise ValueError(
                f"{origin} has no {missing[0]}: it holds weights and not the state of a training; {REMEDY}"
            )
        states = checkpoint["callbacks"]
        check_like({"fit_loop": trainer.fit_loop.state_dict()}, checkpoint["loops"], origin, "loops")
        # only there if a loader has a state; what is inside, the loader checks
        loaders = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
        check_like([{} for _ in loaders or ()], loaders, origin, "loops.fit_loop.state_dict.combined_loader")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector
            if callback.state_key in states:
                check_like(callback.state_dict(), states[callback.state_key], origin, f"callbacks.{callback.state_key}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._updates, self._written = trainer.global_step, self.clock()
        weights = [weight for weight in pl_module.parameters() if weight.requires_grad]
        trained = sum(weight.numel() for weight in weights)
        whole = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy) and not any(map(is_split, weights))
        self._keeps = whole and trained <= MOST_KEPT and not trainer.fast_dev_run  # type: ignore[attr-defined]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        write_row(trainer)
        if self._due(trainer) and not self._should_skip_saving_checkpoint(trainer):
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)
            self._written = self.clock()
            written(trainer)
        if self._keeps:
            # all ranks together, as the state of a round is gathered
            state = trainer._checkpoint_connector.dump_checkpoint(False)
            self._kept = _copied(state) if trainer.is_global_zero else None

    def _due(self, trainer: Trainer) -> bool:
        before, self._updates = self._updates, trainer.global_step
        late = self.clock() - self._written >= self.seconds
        # the clocks of ranks differ
        return passed(before, self._updates, self._every_n_train_steps) or bool(trainer.strategy.broadcast(late))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
            written(trainer)
        self._kept = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes the state after the last finished batch; the other processes may be gone, so nothing is exchanged."""
        kept, self._kept = self._kept, None
        if kept is None or not trainer.is_global_zero:
            return
        try:
            path = os.path.join(str(self.dirpath), f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")
            trainer.strategy.checkpoint_io.save_checkpoint(kept, path)
            if isinstance(pl_module, Alignment):
                with swapped(pl_module.chain.model, kept["state_dict"]):
                    written(trainer)
        except OSError as error:
            # the exception that ended the run is the one to report
            warnings.warn(str(error), stacklevel=2)


def _copied(value: Any) -> Any:
    """Returns a copy of nested dictionaries and sequences, with their tensors in the main memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    return value


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all; reads tensors and plain values only, and finds damage before it reads."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes the file whole or not at all.

        Raises:
            OSError: If it cannot be written; the previous file is as it was.
        """
        try:
            save_whole(Path(path), checkpoint)
        except OSError as error:
            then = "resume from the previous checkpoint, which is untouched"
            raise unwritten(f"the checkpoint {path}", error, then) from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Reads a file that :meth:`save_checkpoint` has written.

        Raises:
            FileNotFoundError: If the file does not exist.
            ValueError: If the file is cut off, damaged, or something else than a training checkpoint, or if a value in it has
                another type than Lightning and torch write.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"there is no checkpoint {path}; check --ckpt_path")
        checkpoint = _read(file, map_location)
        if file.name == LAUNCHER:
            return checkpoint
        if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
            raise ValueError(f"{path} is a PyTorch file but no training checkpoint; {REMEDY}")
        check_training_state(checkpoint, str(path))
        # Lightning looks for it, to change what older versions have written
        checkpoint.setdefault("pytorch-lightning_version", lightning.__version__)
        # without it Lightning asks no callback, and nobody notices that it is missing
        checkpoint.setdefault("callbacks", Lost())
        return checkpoint


def _without_last(folder: Path, root: Path) -> str:
    """Returns the message of a run without a last checkpoint."""
    others = sorted(root.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime) if root.is_dir() else []
    advice = (
        f"the newest checkpoint under {root} is {others[-1]}: set --ckpt_path to it"
        if others
        else ("leave it out to begin a run, or set --ckpt_path to a checkpoint")
    )
    return f"--resume: there is no last.ckpt in {folder}; {advice}"


def _read(file: Path, map_location: Any) -> Any:
    check_file(file, REMEDY)
    if not is_zip(file):
        raise ValueError(f"{file} is no checkpoint of `fit`, which is a zip file; {REMEDY}")
    return read_archive(file, map_location, remedy=REMEDY)
