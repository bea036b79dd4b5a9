"""Samples of a few fixed prompts, before and after."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image
from torch import Tensor

from rlr.callbacks.ema import averaged
from rlr.callbacks.held_out import HeldOut, held_out
from rlr.callbacks.media import now, show_picture, show_video, updates
from rlr.callbacks.untrained import Untrained
from rlr.data.prompts import PromptData
from rlr.evaluation.measure import measure_pixels, parts
from rlr.evaluation.pictures import Card, film, grid, picture, png
from rlr.evaluation.sampling import paint
from rlr.io.atomic import write_whole
from rlr.io.video import Video, write_video
from rlr.modules.alignment import Alignment
from rlr.rewards.base import Reward


class Shown(NamedTuple):
    """The frames of a sample, one of a picture, with what is written below it."""

    frames: list[Image.Image]
    score: str


class SampleGrid(Callback):
    r"""Draws samples of the first prompts, the base model's beside the present one's on the same noise.

    The picture goes to ``folder/000050.png``, named by the number of updates, and to every logger that can show it. Of
    clips, the picture shows the middle frames, and ``000050.mp4`` beside it plays them side by side; that goes to the
    loggers. Noises are those of a :class:`~rlr.callbacks.RewardEvaluation` with the same prompts and seed. With an
    :class:`~rlr.callbacks.EMA` the average is drawn from.

    Args:
        number: How many prompts.
        every: After how many updates to draw; 0 is at the end of training, and in ``test``.
        prompts: The prompts, by default those of the run's own data.
        split: Which of them, by default ``val`` while training and ``test`` in ``test``.
        seed: Decides all noises.
        folder: Where to write, by default ``samples`` in the trainer's root folder.
    """

    def __init__(
        self,
        number: int = 8,
        every: int = 0,
        prompts: PromptData | None = None,
        split: str | None = None,
        seed: int = 0,
        folder: str | None = None,
    ) -> None:
        if number < 1 or every < 0:
            raise ValueError(
                f"SampleGrid draws 1 or more prompts every 0 or more updates, and {number}, {every} were given"
            )
        self.number, self.every, self.prompts = number, every, prompts
        self.split, self.seed, self.folder = split, seed, folder
        self._untrained: Untrained | None = None
        self._base: list[Shown] = []
        self._done = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remembers the base model."""
        assert isinstance(pl_module, Alignment)
        if stage in ("fit", "test"):
            self._held(trainer)
            self._untrained, self._base, self._done = Untrained(pl_module), [], -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._done = trainer.global_step
        self._draw_base(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        # several batches may make one update, and one may bring several
        if self.every and trainer.global_step // self.every > self._done // self.every:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step != self._done:
            self._draw(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw_base(trainer, pl_module)
        self._draw(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drops the copy of the base model's weights, if there still is one."""
        self._untrained = None

    # one process is enough for a few pictures

    def _draw_base(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Alignment)
        assert self._untrained is not None
        if trainer.is_global_zero and self._untrained.known:
            with self._untrained.restored():
                self._base = self._samples(trainer, module)
        self._untrained = None

    def _draw(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Alignment)
        self._done = trainer.global_step
        if not trainer.is_global_zero:
            return
        with averaged(trainer, module):
            present = self._samples(trainer, module)
        update, prompts = updates(trainer, module), self._held(trainer).prompts
        words = self._words(module, update, len(prompts))
        frames = range(len(present[0].frames))
        images = [grid(self._cards(prompts, present, frame), *words) for frame in frames]
        stem = Path(self.folder or Path(trainer.default_root_dir) / "samples") / f"{update:06d}"
        self._show(trainer, module, stem, images)

    def _show(self, trainer: Trainer, module: Alignment, stem: Path, images: list[Image.Image]) -> None:
        """Writes the grids of all frames, and hands them to the loggers."""
        still, fps = images[len(images) // 2], module.chain.model.size.fps
        write_whole(stem.with_suffix(".png"), png(still))
        if fps is None:
            for logger in trainer.loggers:
                show_picture(logger, "samples", still, now(module))
            return
        video = Video(film(images), fps)
        write_video(stem.with_suffix(".mp4"), video.frames, video.fps)
        for logger in trainer.loggers:
            show_video(logger, "samples", video, now(module))

    def _cards(self, prompts: Sequence[str], present: Sequence[Shown], frame: int) -> list[Card]:
        rows = {"base": self._base, "aligned": present} if self._base else {"": present}
        return [
            Card(
                prompt,
                [row[i].frames[frame] for row in rows.values()],
                [f"{name} {row[i].score}" for name, row in rows.items()],
            )
            for i, prompt in enumerate(prompts)
        ]

    def _words(self, module: Alignment, update: int, count: int) -> tuple[str, str]:
        after = f"before and after {update} updates" if self._base else f"after {update} updates"
        scored = f"; scores by {module.reward.label}" if len(parts(module.reward)) == 1 else ""
        return f"{count} held-out prompts {after}", f"not chosen; the same noise every time{scored}"

    def _samples(self, trainer: Trainer, module: Alignment) -> list[Shown]:
        held = self._held(trainer)
        shown: list[Shown] = []
        with isolate_rng(module.device.type == "cuda"), trainer.precision_plugin.forward_context():
            for painted in paint(module.chain, held.prompts, 1, self.seed, held.batch):
                scores = self._scores(module.reward, painted.pixels, painted.prompts)
                shown += [Shown(_frames(pixels), score) for pixels, score in zip(painted.pixels, scores, strict=True)]
        return shown

    def _scores(self, reward: Reward, pixels: Tensor, prompts: Sequence[str]) -> list[str]:
        # a combination's own scale may change during training
        if len(parts(reward)) > 1:
            return [""] * len(prompts)
        return [scored(reward, score) for score in measure_pixels(reward, pixels, prompts).tolist()]

    def _held(self, trainer: Trainer) -> HeldOut:
        split = self.split or ("test" if trainer.testing else "val")
        sets = None if self.prompts is None else {type(self.prompts).__name__: self.prompts}
        return next(iter(held_out(trainer, sets, split, 1, self.number).values()))


def scored(reward: Reward, score: float) -> str:
    """Returns a score as text, raw and on its published scales."""
    return ", ".join([f"{score:.4g}", *(f"{name} {factor * score:.4g}" for name, factor in reward.scales.items())])


def _frames(pixels: Tensor) -> list[Image.Image]:
    return [picture(frame) for frame in (pixels if pixels.ndim == 4 else pixels[None])]
