"""VBench during training and after it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from rlr.callbacks.ema import averaged
from rlr.callbacks.media import log_numbers, now, show_table, show_video, updates
from rlr.data.vbench import VBenchPrompts
from rlr.evaluation.vbench import table, weights
from rlr.evaluation.vbench.naming import Clip
from rlr.evaluation.vbench.report import Report, evaluate
from rlr.evaluation.vbench.sampling import rate, sample, write_clip
from rlr.evaluation.vbench.scoring import Judge
from rlr.evaluation.vbench.videos import PromptSet
from rlr.io.video import read_video
from rlr.modules.alignment import Alignment


class VBenchEvaluation(Callback):
    r"""Judges clips of a few of VBench's prompts during training, and of all of them in ``test``.

    Clips go to ``folder/000050/videos``, named by the number of updates, or to ``folder/test/videos``, and with them
    scores, ``results.json`` and ``table.md``. Loggers get the scores in percent, the table, and the first clip of each
    prompt of the subset. The noise of a clip is that of ``python -m rlr.cli.vbench``. With an
    :class:`~rlr.callbacks.EMA` the average is judged.

    Ranks share the sampling; the first one has VBench judge, in a process of its own on the same device, while the
    others wait. An interrupted ``test`` begins anew: for the whole set on several devices, ``make eval-vbench`` is
    the better way.

    Args:
        every: After how many updates to judge; 0 is at the end of training only, None is never: in ``test`` only.
        prompts: The prompts with their dimensions, samples and batch size; by default all of the six dimensions.
        limit: How many prompts of each dimension are judged during training.
        samples: How many clips of each are, then.
        weights: The folder of the networks' weights, by default VBench's own.
        fps: Frames a second of the files, by default the model's own rate.
        enlarge: The side of the square that each pixel becomes.
        folder: Where to write, by default ``vbench`` in the trainer's root folder.
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
        for name, value, least in (
            ("every", every, 0),
            ("limit", limit, 1),
            ("samples", samples, 1),
            ("enlarge", enlarge, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"VBenchEvaluation's {name} is at least {least}, and {value} was given")
        self.every, self.limit, self.samples = every, limit, samples
        self.prompts = prompts or VBenchPrompts()
        self.weights, self.fps, self.enlarge, self.folder = weights, fps, enlarge, folder
        self.whole = PromptSet(self.prompts.dimensions_of, self.prompts.evaluation_samples)
        self.report: Report | None = None
        """The latest; on the first rank only."""
        self._done = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that VBench can judge before anything is sampled."""
        if not isinstance(pl_module, Alignment):
            raise ValueError(
                f"VBenchEvaluation samples from an Alignment, and {type(pl_module).__name__} is none; remove it"
            )
        if trainer.is_global_zero and (stage == "test" or (stage == "fit" and self.every is not None)):
            self._judge(pl_module).check(self.whole.judged)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._done = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        update = trainer.global_step
        # several batches may make one update
        if self.every and update != self._done and update % self.every == 0:
            self._evaluate_some(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every is not None and trainer.global_step != self._done:
            self._evaluate_some(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluate(trainer, pl_module, self.whole, "test")

    def _evaluate_some(self, trainer: Trainer, module: LightningModule) -> None:
        self._done = trainer.global_step
        self._evaluate(trainer, module, self.whole.first(self.limit, self.samples), f"{trainer.global_step:06d}")

    def _evaluate(self, trainer: Trainer, module: LightningModule, videos: PromptSet, place: str) -> None:
        assert isinstance(module, Alignment)
        folder = Path(self.folder or Path(trainer.default_root_dir) / "vbench") / place
        with averaged(trainer, module), self._sampling(trainer, module):
            self._write(module, videos.clips[trainer.global_rank :: trainer.world_size], folder / "videos")
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self.report = self._score(trainer, module, videos, folder)
        numbers: dict[str, float] = trainer.strategy.broadcast(self.report.metrics() if self.report else {})
        # for callbacks that monitor a number, and that must agree on it
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in numbers.items()})
        log_numbers(trainer, module, numbers)
        if self.report:
            self._show(trainer, module, self.report, videos, folder)

    @contextmanager
    def _sampling(self, trainer: Trainer, module: Alignment) -> Iterator[None]:
        """Within, no global generator is used up."""
        with ExitStack() as stack:
            stack.enter_context(isolate_rng(include_cuda=module.device.type == "cuda"))
            stack.enter_context(trainer.precision_plugin.forward_context())
            yield

    def _write(self, module: Alignment, clips: Sequence[Clip], folder: Path) -> None:
        fps = self.fps or rate(module.chain.model)
        for clip, pixels in sample(module, clips, self.prompts.batch_size):
            write_clip(folder / clip.name, pixels, fps, self.enlarge)

    def _judge(self, module: Alignment) -> Judge:
        return Judge(weights.cache(self.weights), module.device.type, module.device.index)

    def _score(self, trainer: Trainer, module: Alignment, videos: PromptSet, folder: Path) -> Report:
        if module.device.type == "cuda":
            # the judging process needs what this one only keeps in reserve
            torch.cuda.empty_cache()
        update = updates(trainer, module)
        facts = {"checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None, "update": update}
        name = f"after {update} updates, {len(videos.clips)} clips"
        return evaluate(name, videos, folder / "videos", folder, self._judge(module), facts)

    def _show(self, trainer: Trainer, module: Alignment, report: Report, videos: PromptSet, folder: Path) -> None:
        trainer.print(f"\n{report.text()}\n")
        report.save(folder)
        for logger in trainer.loggers:
            show_table(logger, "vbench", table.lines(report.name, report.values), now(module))
            for k, clip in enumerate(videos.first(self.limit, 1).clips):
                show_video(logger, f"vbench/{k}", read_video(folder / "videos" / clip.name), now(module))
