"""Checkpoints that a crash, a full disk or a wrong file cannot spoil."""

import errno
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from rlr.io.weights import check_file, is_zip, read_archive, save_whole

REMEDY = "resume from another checkpoint that `fit` has written"
"""What messages advise if a checkpoint cannot be read."""

LAUNCHER = ".temp.ckpt"
"""The file of bare weights that Lightning's forked and spawned processes hand to their parent."""


class Checkpointing(ModelCheckpoint):
    r"""Keeps ``last.ckpt``, rewritten every ``every`` updates and when training ends.

    Where one batch brings several updates, it is written after the first batch that reaches the next multiple.

    An update with a gradient that is not finite changes no weight, so the last checkpoint is always a good one.

    Args:
        every: The updates between two writes.
        dirpath: The folder, by default ``checkpoints`` beside the logger's files.
        keep: Whether to keep one file for each write, ``step=….ckpt``, too.
    """

    def __init__(self, every: int = 50, dirpath: str | None = None, keep: bool = False) -> None:
        if every < 1:
            raise ValueError(f"Checkpointing writes every 1 or more updates, and every={every} was given")
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
    """Writes a checkpoint beside its place and then moves it there; reads tensors and plain values only."""

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
            FileNotFoundError: If there is none.
            ValueError: If it is cut short, or something else than a training checkpoint.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"there is no checkpoint {path}; check --ckpt_path")
        checkpoint = _read(file, map_location)
        if file.name == LAUNCHER:
            return checkpoint
        if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
            raise ValueError(
                f"{path} is a PyTorch file but no training checkpoint; give a .ckpt that `fit` has written"
            )
        return checkpoint


def _read(file: Path, map_location: Any) -> Any:
    check_file(file, REMEDY)
    if not is_zip(file):
        raise ValueError(f"{file} is no checkpoint of `fit`, which is a zip file; {REMEDY}")
    return read_archive(file, map_location, remedy=REMEDY)
