"""Evaluation before, during and after an alignment, on the same noises every time."""

import sys
import time
from functools import partial

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from rlr.callbacks.evaluation import Scheduled, sampling
from rlr.distributed import rank
from rlr.evaluation.diversity import Diversity
from rlr.evaluation.evaluator import Evaluated, Evaluator
from rlr.evaluation.metrics import Metric, RewardMetric
from rlr.evaluation.report import say
from rlr.evaluation.samples import SampleSet
from rlr.evaluation.statistics import compare_pair
from rlr.io.terminal import TERMINAL, counted
from rlr.models.base import DiffusionModel
from rlr.modules.alignment import Alignment
from rlr.modules.progress import passed
from rlr.rewards.base import Reward
from rlr.toy.demo.curves import Curves
from rlr.toy.demo.images import Images
from rlr.toy.demo.videos import Videos
from rlr.toy.demo.world import Claims, World

FOLLOWED = ("reward", "all")
"""Measurements whose curves are drawn."""
BATCH = 60


def world_of(model: DiffusionModel) -> World:
    """Returns the world of a model: images of the built-in world, or its videos."""
    return Images() if model.size.fps is None else Videos(model.size.fps)


class TrainedReward(RewardMetric):
    """The reward of the training, whichever it is."""

    label = "reward"


def metrics(world: World, reward: Reward, samples: int) -> list[Metric]:
    """Returns reward, exact check and, with several samples per prompt, diversity.

    Called on a whole video, a :class:`~rlr.rewards.FrameReward` is the mean over its frames, of which updates draw some.
    """
    return [TrainedReward(reward), Claims(world), *([Diversity()] if samples > 1 else [])]


class DemoEvaluation(Scheduled):
    r"""Evaluates on held-out prompts of the model's world, at the start, at the end and every few updates between.

    Args:
        prompts: The number :math:`N` of held-out prompts.
        samples: The number :math:`S` of samples of each, at least two.
        every: After how many updates the first ``looks`` prompts are sampled once each; 0 is never.
        looks: The number of these prompts.
        seed: The seed of prompts and noises.
    """

    def __init__(self, prompts: int = 120, samples: int = 2, every: int = 10, looks: int = 60, seed: int = 0) -> None:
        super().__init__(every)
        self.number, self.samples, self.looks, self.seed = prompts, samples, looks, seed
        self.world: World | None = None
        self.set = SampleSet([], samples, seed, BATCH)
        self.base: Evaluated | None = None
        self.aligned: Evaluated | None = None
        self.updates: list[int] = []
        self.seen: list[dict[str, Tensor]] = []
        self.training: list[float] = []
        self.times: dict[str, float] = {}
        self._rewards: list[float] = []
        self._ended = False

    @property
    def curves(self) -> Curves:
        """The measurements so far."""
        held_out = {name: [compare_pair(self.seen[0][name], seen[name]) for seen in self.seen] for name in FOLLOWED}
        return Curves(self.updates, held_out, min(self.looks, len(self.set.prompts)), self.training)

    def begin(self, trainer: Trainer, module: Alignment) -> None:
        self.world = world_of(module.chain.model)
        self.set = SampleSet(self.world.prompts(self.number, self.seed), self.samples, self.seed, BATCH)
        with sampling(trainer, module):
            self.base = self._measure(module, self.set, "the base model")
        self._note(0, self.base)
        self.times["started"] = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self._rewards.append(float(trainer.callback_metrics["reward/mean"]))
        update, before = trainer.global_step, len(self.training)
        # several batches may make one update, and one may bring several
        if update != before:
            self.training.extend([sum(self._rewards) / len(self._rewards)] * (update - before))
            self._rewards.clear()
            if trainer.is_global_zero:
                self._print_progress(before, update, trainer.max_steps)
        # the end has an evaluation of its own
        if update != trainer.max_steps:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.times["alignment"] = time.monotonic() - self.times["started"]
        self._ended = True
        self._run(trainer, pl_module)

    def evaluate(self, trainer: Trainer, module: Alignment) -> None:
        if self._ended:
            self.aligned = found = self._measure(module, self.set, "the aligned model")
        else:
            # sample 0 of a prompt has the same noise here as in a whole evaluation
            found = self._measure(module, SampleSet(self.set.prompts[: self.looks], 1, self.seed, BATCH))
        self._note(trainer.global_step, found)

    def _print_progress(self, before: int, update: int, updates: int) -> None:
        left = (time.monotonic() - self.times["started"]) / update * (updates - update)
        recent = self.training[-10:]
        text = f"update {update} of {updates}, reward {sum(recent) / len(recent):.2f}, {left:.0f} s left"
        if sys.stdout.isatty():
            sys.stdout.write(f"\r{text:<60}{chr(10) if update == updates else ''}")
            sys.stdout.flush()
        elif passed(before, update, 10) or update == updates:
            say(text)

    def _note(self, update: int, found: Evaluated) -> None:
        self.updates.append(update)
        # sample 0 of each prompt
        self.seen.append({name: found.values[name][: self.looks, :1] for name in FOLLOWED})

    def _measure(self, module: Alignment, samples: SampleSet, what: str = "") -> Evaluated:
        assert self.world is not None
        if what and rank() == 0:
            say(f"sampling {len(samples.prompts)} held-out prompts × {samples.samples} with {what} …")
        measured = metrics(self.world, module.reward, samples.samples)
        # the first sample of each prompt is shown
        first = range(0, len(samples), samples.samples)
        with TERMINAL.alive():
            return Evaluator(samples, measured, first, partial(counted, "sampling, sample")).evaluate(module.chain)
