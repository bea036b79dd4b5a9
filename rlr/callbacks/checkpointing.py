"""Checkpoints that a crash, a full disk or a wrong file cannot damage."""

import errno
import os
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from rlr.io.weights import check_file, is_zip, read_archive, save_whole
from rlr.modules.checkpoint import REMEDY, check_like, check_training_state

LAUNCHER = ".temp.ckpt"
"""The file of bare weights that Lightning's forked and spawned processes hand to their parent."""


class Checkpointing(ModelCheckpoint):
    r"""Keeps ``last.ckpt``, rewritten every ``every`` updates and when training ends.

    If one batch makes several updates, the file is written after the first batch that reaches the next multiple of ``every``.

    An update with a gradient that is not finite changes no weight, so the last checkpoint is always a good one.

    Args:
        every: The number of updates between two writes.
        dirpath: The folder, by default ``checkpoints`` in ``trainer.default_root_dir``.
        keep: Whether to keep one file for each write, ``step=….ckpt``, too.

    Raises:
        FileNotFoundError: If ``ckpt_path="last"`` is asked for and there is no last checkpoint in the folder.
    """

    def __init__(self, every: int = 50, dirpath: str | None = None, keep: bool = False) -> None:
        if every < 1:
            raise ValueError(f"Checkpointing: expected every >= 1, got {every}")
        super().__init__(
            dirpath,
            filename="{step}",
            save_last=True,
            save_top_k=-1 if keep else 0,
            every_n_train_steps=every,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self._updates = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._set_folder(trainer)
        super().setup(trainer, pl_module, stage)

    def _set_folder(self, trainer: Trainer) -> None:
        # Lightning's default has the version of the logger in it, which is another one in the run that resumes
        if self.dirpath is None:
            self.dirpath = os.path.join(os.path.realpath(trainer.default_root_dir), "checkpoints")

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
        origin, states = str(trainer.ckpt_path or "the checkpoint"), checkpoint["callbacks"]
        check_like({"fit_loop": trainer.fit_loop.state_dict()}, checkpoint["loops"], origin, "loops")
        # only there if a loader has a state; what is inside, the loader checks
        loaders = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
        check_like([{} for _ in loaders or ()], loaders, origin, "loops.fit_loop.state_dict.combined_loader")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector
            if callback.state_key in states:
                check_like(callback.state_dict(), states[callback.state_key], origin, f"callbacks.{callback.state_key}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._updates = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every, before, self._updates = self._every_n_train_steps, self._updates, trainer.global_step
        # one batch may bring several updates, and pass the one to write after
        if self._updates // every == before // every or self._should_skip_saving_checkpoint(trainer):
            return
        candidates = self._monitor_candidates(trainer)
        self._save_topk_checkpoint(trainer, candidates)
        self._save_last_checkpoint(trainer, candidates)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))


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
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise OSError(
                f"the checkpoint {path} could not be written, for "
                f"{'the disk is full' if full else (error.strerror or error)}; "
                f"{'make room' if full else 'choose another folder'} and resume from the previous checkpoint, "
                "which is untouched"
            ) from error

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
        return checkpoint


def _without_last(folder: Path, root: Path) -> str:
    """Returns the message of a run without a last checkpoint."""
    others = sorted(root.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime) if root.is_dir() else []
    advice = (
        f"the newest checkpoint under {root} is {others[-1]}: set --ckpt_path to it"
        if others
        else ("leave out --ckpt_path to begin a run, or set it to the path of a checkpoint")
    )
    return f"--ckpt_path=last: there is no last.ckpt in {folder}; {advice}"


def _read(file: Path, map_location: Any) -> Any:
    check_file(file, REMEDY)
    if not is_zip(file):
        raise ValueError(f"{file} is no checkpoint of `fit`, which is a zip file; {REMEDY}")
    return read_archive(file, map_location, remedy=REMEDY)
