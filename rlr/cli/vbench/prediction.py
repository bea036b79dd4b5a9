"""The parts of a ``predict`` run that makes videos: no reward, the videos that are missing, and their names."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from rlr.callbacks.prediction import PredictionWriter
from rlr.data.stream import PromptBatch
from rlr.data.vbench import SIX, VBenchPrompts
from rlr.evaluation.vbench.metric import FPS, write
from rlr.evaluation.vbench.naming import VideoName, prompt_number
from rlr.evaluation.vbench.videos import PromptSet
from rlr.modules.sampling import Prediction, finite
from rlr.rewards.base import Reward


class Unscored(Reward):
    """No reward: sampling for VBench needs none."""

    supports_video = True

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples.new_zeros(len(prompts))


class MissingVideos(VBenchPrompts):
    """The videos of a set that a folder does not hold yet, for ``predict``.

    Ranks share the set, not what is missing: each looks at the folder when it starts, and another may have begun to write.

    Args:
        folder: The folder of the videos, in which :class:`VideoWriter` writes.
        dimensions: The dimensions, by default all six.
        path: A ``VBench_full_info.json``, by default that of the installed package ``vbench``.
        batch_size: The most videos a process makes at once.
        evaluation_samples: The videos of each prompt.
        fps: Frames per second, by default the rate of the model.
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
            raise ValueError(f"MissingVideos: expected enlarge >= 1, found {enlarge}")
        self.folder = Path(folder)
        self.set = PromptSet(self.dimensions_of, evaluation_samples)
        self.fps, self.enlarge = fps, enlarge

    def predict_dataloader(self) -> "VideoPass":  # type: ignore[override]
        """The missing videos of this rank's share."""
        rank, world = self._place()
        missing = self.set.missing(self.folder)
        return VideoPass([name for name in self.set.names[rank::world] if name in missing], self)


class VideoPass:
    """Batches of videos, each once.

    Args:
        names: The videos.
        data: Their batch size and number per prompt.
    """

    def __init__(self, names: Sequence[VideoName], data: VBenchPrompts) -> None:
        self.names, self.batch_size, self.samples = names, data.batch_size, data.evaluation_samples

    def __len__(self) -> int:
        return -(-len(self.names) // self.batch_size)

    def __iter__(self) -> Iterator[PromptBatch]:
        for at in range(0, len(self.names), self.batch_size):
            some = self.names[at : at + self.batch_size]
            # sample k of prompt i has number i S + k, here with a number of the prompt that no set changes
            numbers = [prompt_number(name.prompt) * self.samples + name.number for name in some]
            yield PromptBatch([name.prompt for name in some], numbers)


class VideoWriter(PredictionWriter):
    """Writes the videos of :class:`MissingVideos` under VBench's names, each whole or not at all."""

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
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, MissingVideos)
        sound = finite(prediction.samples) if prediction.prompts else torch.ones(0)
        rows = zip(prediction.indices, prediction.prompts, prediction.samples, sound.tolist(), strict=True)
        for index, prompt, pixels, whole in rows:
            name = VideoName(prompt, index % data.evaluation_samples)
            if whole:
                write(data.folder / name.file, pixels, data.fps or prediction.fps or FPS, data.enlarge)
