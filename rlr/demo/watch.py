"""Looks at the model before, during and after an alignment, with the same noises every time."""

import sys
import time

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from rlr.chain import Chain
from rlr.demo.curves import Curves
from rlr.demo.evaluate import Evaluation, evaluate
from rlr.modules.alignment import Alignment
from rlr.rewards.base import Reward
from rlr.world.prompts import held_out_prompts

FOLLOWED = ("reward", "all")
"""Measurements whose curves are drawn."""


def say(text: str) -> None:
    """Writes a line for whoever waits."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Watch(Callback):
    r"""Evaluates on held-out prompts of the built-in world at the start, at the end and every few updates between.

    Args:
        prompts: The number :math:`N` of held-out prompts.
        samples: The number :math:`S` of samples of each, at least two.
        every: After how many updates the first ``looks`` prompts are sampled once each; 0 is never.
        looks: How many prompts these are.
        seed: The seed of prompts and noises.
    """

    def __init__(self, prompts: int = 120, samples: int = 2, every: int = 10, looks: int = 60, seed: int = 0) -> None:
        # a caption may be drawn twice: four times as many leave enough different ones
        self.prompts = list(dict.fromkeys(held_out_prompts(4 * prompts, seed)))[:prompts]
        self.samples = samples
        self.every = every
        self.looks = looks
        self.seed = seed
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
        self.base = self._evaluate(pl_module, "the base model")
        self._note(0, self.base)
        self.times["started"] = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self._rewards.append(float(trainer.callback_metrics["reward/mean"]))
        update = trainer.global_step
        # several batches may make one update
        if update == len(self.training):
            return
        self.training.append(sum(self._rewards) / len(self._rewards))
        self._rewards.clear()
        self._tell(update, trainer.max_steps)
        if self.every and update % self.every == 0 and update != trainer.max_steps:
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
        return evaluate(*_parts(module), self.prompts[: self.looks], 1, self.seed)

    def _evaluate(self, module: LightningModule, what: str) -> Evaluation:
        say(f"sampling {len(self.prompts)} held-out prompts × {self.samples} with {what} …")
        return evaluate(*_parts(module), self.prompts, self.samples, self.seed)


def _parts(module: LightningModule) -> tuple[Chain, Reward]:
    assert isinstance(module, Alignment)
    return module.chain, module.reward


def _first(values: Tensor, count: int) -> float:
    return values[:count, 0].mean().item()
