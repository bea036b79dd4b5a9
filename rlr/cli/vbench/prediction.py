"""The parts of a ``predict`` run that makes videos: no reward, the videos that are missing, and their names."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from rlr.callbacks.prediction import PredictionWriter
from rlr.data.prompts import PromptData
from rlr.data.stream import PromptPass
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
    """The videos of a set that a folder does not hold yet, for ``predict`` with a :class:`VideoWriter`.

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
        # refuses what cannot be the name of a file
        PromptSet(self.dimensions_of, evaluation_samples)
        self.fps, self.enlarge = fps, enlarge

    def predict_dataloader(self) -> PromptPass:
        """The videos of this rank's share; the noise of each follows from its prompt, and not from the set."""
        numbers = [prompt_number(prompt) for prompt in self._required("predict")]
        return self._pass("predict", numbers=numbers, finished=self._is_finished)

    def file(self, prompt: str, index: int) -> Path:
        """Returns the file of a sample."""
        return self.folder / VideoName(prompt, index % self.evaluation_samples).file


class VideoWriter(PredictionWriter):
    """Writes the videos of :class:`MissingVideos` under VBench's names, each whole or not at all."""

    remedy = "set another --out"

    def place(self, trainer: Trainer) -> Path:
        return _videos(trainer.datamodule).folder  # type: ignore[attr-defined]

    def facts(self, module: LightningModule, data: PromptData) -> dict[str, Any]:
        videos = _videos(data)
        return {"fps": videos.fps, "enlarge": videos.enlarge}

    def finished(self, folder: Path, data: PromptData) -> Callable[[str, int], bool]:
        videos, there = _videos(data), {path.name for path in folder.iterdir()}
        return lambda prompt, index: videos.file(prompt, index).name in there

    def write(self, trainer: Trainer, module: LightningModule, prediction: Prediction, i: int) -> None:
        data, pixels = _videos(trainer.datamodule), prediction.samples[i]  # type: ignore[attr-defined]
        if finite(pixels[None]).item():
            path = data.file(prediction.prompts[i], prediction.indices[i])
            write(path, pixels, data.fps or prediction.fps or FPS, data.enlarge)


def _videos(data: Any) -> MissingVideos:
    assert isinstance(data, MissingVideos)
    return data
