"""VBench as a metric: videos are written as they come, and judged together."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from rlr.distributed import gather_objects, rank
from rlr.evaluation.metrics import Metric
from rlr.evaluation.samples import SampleBatch, SampleSet
from rlr.evaluation.vbench.naming import VideoName
from rlr.evaluation.vbench.report import Report, evaluate
from rlr.evaluation.vbench.scoring import Judge
from rlr.evaluation.vbench.videos import PromptSet
from rlr.io.video import write_video

FPS = 8.0
"""Frames per second of VBench's own sample code, for a model without a rate."""


class VBench(Metric):
    """The weighted average of six dimensions in percent, and each of them.

    The videos and scores are written to a folder. The first rank has VBench judge the videos of all, in a process of its own, while
    the others wait.

    Args:
        videos: The videos and what is judged of each.
        judge: The judge.
        folder: Where to write.
        fps: Frames per second of the files.
        enlarge: The side of the square that each pixel becomes.
        name: The name of the row in the table.
        facts: Further facts for the report.
    """

    label = "weighted_average"
    per_sample = False

    def __init__(
        self,
        videos: PromptSet,
        judge: Judge,
        folder: Path,
        fps: float | None = None,
        enlarge: int = 1,
        name: str = "",
        facts: Mapping[str, object] | None = None,
    ) -> None:
        self.videos, self.judge, self.folder = videos, judge, folder
        self.fps, self.enlarge = fps or FPS, enlarge
        self.name, self.facts = name, facts or {}
        self.report: Report | None = None
        """The latest."""

    def check(self, samples: SampleSet, video: bool) -> None:
        self.judge.check(self.videos.judged)

    def measure(self, batch: SampleBatch) -> Tensor:
        for row, prompt, pixels in zip(batch.rows, batch.prompts, batch.pixels, strict=True):
            name = VideoName(prompt, row % self._samples.samples)
            write(self.folder / "videos" / name.file, pixels, self.fps, self.enlarge)
        return torch.ones(len(batch.rows))

    def reduce(self, values: Tensor) -> Tensor:
        report = None
        if rank() == 0:
            if self.judge.device == "cuda":
                # the judging process needs the memory that this one keeps in reserve
                torch.cuda.empty_cache()
            # a video that is not finite was not written
            videos = replace(self.videos, partial=True) if values.isnan().any() else self.videos
            report = evaluate(self.name, videos, self.folder / "videos", self.folder, self.judge, self.facts)
        self.report = gather_objects(report)[0]
        average = self.report.percent.get(self.label)
        return torch.tensor(torch.nan if average is None else average, dtype=torch.float64)

    def parts(self) -> dict[str, Tensor]:
        assert self.report is not None
        percent = {name: value for name, value in self.report.percent.items() if name != self.label}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in percent.items()}


def write(path: Path, pixels: Tensor, fps: float, enlarge: int = 1) -> None:
    r"""Writes a video with pixels in [0, 1], of shape :math:`(F, 3, H, W)`, each as a square of ``enlarge`` pixels.

    Raises:
        ValueError: If the sample is an image.
    """
    if pixels.ndim != 4:
        raise ValueError(
            f"VBench judges videos, and the model makes samples of shape {tuple(pixels.shape)}; use a text-to-video model"
        )
    write_video(path, pixels.repeat_interleave(enlarge, -1).repeat_interleave(enlarge, -2), fps)
