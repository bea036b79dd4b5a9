"""Looks at the model before, during and after an alignment, with the same noises every time."""

import sys
import time
from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from rlr.models.base import DiffusionModel
from rlr.modules.alignment import Alignment
from rlr.toy.demo.clips import Clips
from rlr.toy.demo.curves import Curves
from rlr.toy.demo.evaluate import Evaluation, evaluate
from rlr.toy.demo.stills import Stills
from rlr.toy.demo.world import World

FOLLOWED = ("reward", "all")
"""Measurements whose curves are drawn."""


def say(text: str) -> None:
    """Writes a line for whoever waits."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def world_of(model: DiffusionModel) -> World:
    """Returns what a model makes: pictures of the built-in world, or its clips."""
    return Stills() if model.size.fps is None else Clips(model.size.fps)


class Watch(Callback):
    r"""Evaluates on held-out prompts of what the model makes, at the start, at the end and every few updates between.

    Args:
        prompts: The number :math:`N` of held-out prompts.
        samples: The number :math:`S` of samples of each, at least two.
        every: After how many updates the first ``looks`` prompts are sampled once each; 0 is never.
        looks: How many prompts these are.
        seed: The seed of prompts and noises.
    """

    def __init__(self, prompts: int = 120, samples: int = 2, every: int = 10, looks: int = 60, seed: int = 0) -> None:
        self.number = prompts
        self.samples = samples
        self.every = every
        self.looks = looks
        self.seed = seed
        self.world: World | None = None
        self.prompts: list[str] = []
        self.base: Evaluation | None = None
        self.aligned: Evaluation | None = None
        self.updates: list[int] = []
        self.seen: list[dict[str, float]] = []
        self.training: list[float] = []
        self._rewards: list[float] = []
        self.times: dict[str, float] = {}

    @property
    def curves(self) -> Curves:
        """What was seen so far."""
        held_out = {name: [seen[name] for seen in self.seen] for name in FOLLOWED}
        return Curves(self.updates, held_out, min(self.looks, len(self.prompts)), self.training)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Alignment)
        self.world = world_of(pl_module.chain.model)
        self.prompts = self.world.prompts(self.number, self.seed)
        self.base = self._evaluate(pl_module, "the base model")
        self._note(0, self.base)
        self.times["started"] = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self._rewards.append(float(trainer.callback_metrics["reward/mean"]))
        update = trainer.global_step
        before = len(self.training)
        # several batches may make one update, and one may bring several
        if update == before:
            return
        self.training.extend([sum(self._rewards) / len(self._rewards)] * (update - before))
        self._rewards.clear()
        self._tell(update, trainer.max_steps)
        if self.every and update // self.every > before // self.every and update != trainer.max_steps:
            self._note(update, self._look(pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.times["alignment"] = time.monotonic() - self.times["started"]
        self.aligned = self._evaluate(pl_module, "the aligned model")
        self._note(len(self.training), self.aligned)

    def _tell(self, update: int, updates: int) -> None:
        left = (time.monotonic() - self.times["started"]) / update * (updates - update)
        recent = self.training[-10:]
        text = f"update {update} of {updates}, reward {sum(recent) / len(recent):.2f}, {left:.0f} s left"
        if sys.stdout.isatty():
            sys.stdout.write(f"\r{text:<60}{chr(10) if update == updates else ''}")
            sys.stdout.flush()
        elif update % 10 == 0 or update == updates:
            say(text)

    def _note(self, update: int, evaluation: Evaluation) -> None:
        self.updates.append(update)
        self.seen.append({name: _first(evaluation.scores[name], self.looks) for name in FOLLOWED})

    def _look(self, module: LightningModule) -> Evaluation:
        # sample 0 of a prompt has the same noise in a look as in a whole evaluation
        return self._sample(module, self.prompts[: self.looks], 1)

    def _evaluate(self, module: LightningModule, what: str) -> Evaluation:
        say(f"sampling {len(self.prompts)} held-out prompts × {self.samples} with {what} …")
        return self._sample(module, self.prompts, self.samples)

    def _sample(self, module: LightningModule, prompts: Sequence[str], samples: int) -> Evaluation:
        assert isinstance(module, Alignment)
        assert self.world is not None
        return evaluate(self.world, module.chain, module.reward, prompts, samples, self.seed)


def _first(values: Tensor, count: int) -> float:
    return values[:count, 0].mean().item()
