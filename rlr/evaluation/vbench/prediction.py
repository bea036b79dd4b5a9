"""The parts of a ``predict`` run that makes clips: no reward, the clips that are missing, and who writes them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from rlr.data.stream import PromptBatch
from rlr.data.vbench import SIX, VBenchPrompts
from rlr.evaluation.vbench.naming import Clip
from rlr.evaluation.vbench.sampling import rate, write_clip
from rlr.evaluation.vbench.videos import PromptSet
from rlr.modules.alignment import Alignment
from rlr.modules.sampling import Prediction
from rlr.rewards.base import Reward


class Unscored(Reward):
    """No reward: to sample for VBench needs none, and takes no memory for one."""

    supports_video = True

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples.new_zeros(len(prompts))


class MissingClips(VBenchPrompts):
    """The clips of a set that a folder does not hold yet, for ``predict``.

    Ranks share the set, not what is missing: each looks at the folder when it starts, and another may have begun to write.

    Args:
        folder: Where clips are, and where a :class:`ClipWriter` writes them.
        dimensions: The dimensions, by default all six.
        path: A ``VBench_full_info.json``, by default that of the installed package ``vbench``.
        batch_size: The most clips a process makes at once.
        evaluation_samples: The clips of each prompt.
        fps: Frames a second, by default the model's own rate.
        enlarge: The side of the square that each pixel becomes.
    """

    def __init__(
        self,
        folder: str,
        dimensions: tuple[str, ...] = SIX,
        path: str | None = None,
        batch_size: int = 4,
        evaluation_samples: int = 5,
        fps: float | None = None,
        enlarge: int = 1,
    ) -> None:
        super().__init__(dimensions, path, evaluation_samples, batch_size=batch_size)
        if enlarge < 1:
            raise ValueError(f"a pixel becomes a square of 1 or more, and enlarge={enlarge} was given")
        self.folder = Path(folder)
        self.set = PromptSet(self.dimensions_of, evaluation_samples)
        self.fps, self.enlarge = fps, enlarge

    def predict_dataloader(self) -> "ClipPass":  # type: ignore[override]
        """What of this rank's share is missing."""
        rank, world = self._place()
        missing = set(self.set.missing(self.folder))
        return ClipPass([clip for clip in self.set.clips[rank::world] if clip in missing], self.batch_size)


class ClipPass:
    r"""Batches of clips, each once.

    Args:
        clips: The clips.
        batch_size: The most of a batch.
    """

    def __init__(self, clips: Sequence[Clip], batch_size: int) -> None:
        self.clips = clips
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.clips) // self.batch_size)

    def __iter__(self) -> Iterator[PromptBatch]:
        for at in range(0, len(self.clips), self.batch_size):
            piece = self.clips[at : at + self.batch_size]
            yield PromptBatch([clip.prompt for clip in piece], [clip.key for clip in piece])


class ClipWriter(BasePredictionWriter):
    """Writes the clips of :class:`MissingClips` as soon as they are made, each whole or not at all."""

    def __init__(self) -> None:
        super().__init__(write_interval="batch")

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Prediction,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        assert isinstance(pl_module, Alignment)
        data = trainer.datamodule  # type: ignore[attr-defined]
        clips = {clip.key: clip for clip in data.set.clips}
        fps = data.fps or rate(pl_module.chain.model)
        for index, pixels in zip(prediction.indices, prediction.samples, strict=True):
            write_clip(data.folder / clips[index].name, pixels, fps, data.enlarge)
