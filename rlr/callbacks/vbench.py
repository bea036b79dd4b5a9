"""VBench during training and after it."""

from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer

from rlr.callbacks.evaluation import Scheduled, at_least
from rlr.callbacks.loggers import log_numbers, show_table, show_video, updates
from rlr.data.vbench import VBenchPrompts
from rlr.evaluation.evaluator import Evaluator
from rlr.evaluation.report import say
from rlr.evaluation.samples import SampleSet
from rlr.evaluation.vbench import weights
from rlr.evaluation.vbench.metric import VBench
from rlr.evaluation.vbench.naming import VideoName, prompt_number
from rlr.evaluation.vbench.report import Report
from rlr.evaluation.vbench.scoring import Judge
from rlr.evaluation.vbench.videos import PromptSet
from rlr.io.video import read_video
from rlr.modules.alignment import Alignment


class VBenchEvaluation(Scheduled):
    r"""Judges videos of a few of VBench's prompts during training, and of all of them in ``test``.

    Videos go to ``folder/000050/videos``, named by the number of updates, or to ``folder/test/videos``, and with them
    scores, ``results.json`` and ``table.md``. Loggers get the scores in percent, the table, and the first video of each
    prompt of the subset. The noise of a video is that of ``python -m rlr.cli.vbench``. With an
    :class:`~rlr.callbacks.EMA` the average is judged.

    Ranks share the sampling; the first one has VBench judge, in a process of its own on the same device, while the
    others wait. An interrupted ``test`` starts again: for the whole set on several devices, use ``make eval-vbench``.

    Args:
        every: The updates between two evaluations; 0 evaluates at the end of training only, None in ``test`` only.
        prompts: The prompts with their dimensions, samples and batch size; by default all of the six dimensions.
        limit: The number of prompts of each dimension during training.
        samples: The number of videos of each prompt during training.
        weights: The folder of the networks' weights, by default VBench's own.
        fps: Frames per second of the files, by default the rate of the model.
        enlarge: The side of the square that each pixel becomes.
        folder: Where to write, by default ``vbench`` in the root folder of the trainer.
    """

    def __init__(
        self,
        every: int | None = 0,
        prompts: VBenchPrompts | None = None,
        limit: int = 2,
        samples: int = 1,
        weights: str | None = None,
        fps: float | None = None,
        enlarge: int = 1,
        folder: str | None = None,
    ) -> None:
        super().__init__(every)
        at_least(self, limit=(limit, 1), samples=(samples, 1), enlarge=(enlarge, 1))
        self.limit, self.samples = limit, samples
        self.prompts = prompts or VBenchPrompts()
        self.weights, self.fps, self.enlarge, self.folder = weights, fps, enlarge, folder
        self.whole = PromptSet(self.prompts.dimensions_of, self.prompts.evaluation_samples)
        self.report: Report | None = None
        """The latest."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that VBench can judge before anything is sampled."""
        if not isinstance(pl_module, Alignment):
            raise ValueError(
                f"VBenchEvaluation: expected an Alignment as the model, found {type(pl_module).__name__}; remove it"
            )
        if trainer.is_global_zero and (stage == "test" or (stage == "fit" and self.every is not None)):
            self._judge(pl_module).check(self.whole.judged)

    def evaluate(self, trainer: Trainer, module: Alignment) -> None:
        videos = self.whole if trainer.testing else self.whole.first(self.limit, self.samples)
        place = "test" if trainer.testing else f"{trainer.global_step:06d}"
        folder = Path(self.folder or Path(trainer.default_root_dir) / "vbench") / place
        metric = self._metric(trainer, module, videos, folder)
        Evaluator(sample_set(videos, module.seed, self.prompts.batch_size), [metric]).evaluate(module.chain)
        assert metric.report is not None
        self.report = metric.report
        if trainer.is_global_zero:
            self.report.save(folder)
        numbers = {f"vbench/{name}": value for name, value in self.report.percent.items()}
        # for callbacks that monitor a number, and that must agree on it
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in numbers.items()})
        log_numbers(trainer, module, numbers)
        if trainer.is_global_zero:
            self._show(trainer, module, videos, folder, self.report)

    def _metric(self, trainer: Trainer, module: Alignment, videos: PromptSet, folder: Path) -> VBench:
        update = updates(trainer, module)
        facts = {"checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None, "update": update}
        name = f"after {update} updates, {len(videos.names)} videos"
        fps = self.fps or module.chain.model.size.fps
        return VBench(videos, self._judge(module), folder, fps, self.enlarge, name, facts)

    def _judge(self, module: Alignment) -> Judge:
        return Judge(weights.cache(self.weights), module.device.type, module.device.index)

    def _show(self, trainer: Trainer, module: Alignment, videos: PromptSet, folder: Path, report: Report) -> None:
        step = updates(trainer, module)
        for logger in trainer.loggers:
            show_table(logger, "tables/vbench", report.table, step)
            for k, prompt in enumerate(videos.first(self.limit, 1).dimensions_of):
                path = folder / "videos" / VideoName(prompt, 0).file
                show_video(logger, f"media/vbench/{k}", read_video(path), step)
        say(f"\n{report.text()}\n")


def sample_set(videos: PromptSet, seed: int, batch_size: int) -> SampleSet:
    """Returns the samples of a set; the noise of each depends on its prompt and number, not on the set."""
    prompts = list(videos.dimensions_of)
    return SampleSet(prompts, videos.samples, seed, batch_size, [prompt_number(prompt) for prompt in prompts])
