"""Rewards on held-out prompts, during training and after it, beside those of the base model."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from rlr.callbacks.base_scores import BaseScores
from rlr.callbacks.ema import averaged
from rlr.callbacks.held_out import HeldOut, held_out
from rlr.callbacks.media import log_numbers, now, show_table, updates
from rlr.callbacks.untrained import Untrained
from rlr.data.prompts import PromptData
from rlr.evaluation import facts
from rlr.evaluation.diversity import Diversity
from rlr.evaluation.measure import distinct, measure, parts
from rlr.evaluation.results import Measurement, Results
from rlr.evaluation.sampling import paint
from rlr.evaluation.statistics import Estimate
from rlr.io.atomic import write_whole
from rlr.modules.alignment import Alignment
from rlr.rewards.base import Reward
from rlr.rewards.frames import FrameReward

Scores = dict[str, Tensor]
r"""Scores by label, each with shape :math:`(N, S)`."""


class Listener(ABC):
    """A callback that is told of every evaluation."""

    @abstractmethod
    def on_evaluation(self, trainer: Trainer, pl_module: LightningModule, results: Results) -> None:
        """Called on every rank, with the same results."""


class RewardEvaluation(Callback):
    r"""Scores samples of held-out prompts with any rewards, and compares them with the base model's.

    Sample :math:`k` of prompt :math:`i` has a noise of its own, whatever the batch and the number of ranks, and the
    base model gets the same. It is scored once a run: its scores are kept in a file. Intervals are bootstrapped over
    prompts, for the paired difference. With an :class:`~rlr.callbacks.EMA` the average is evaluated.

    A table goes to the terminal and to the loggers, the means to the loggers, and everything to ``results.json`` and
    ``results.csv`` in ``folder/fit`` or ``folder/test``. Scores are shown raw and on their published scale.

    Args:
        prompts: Sets of prompts by name, by default those of the run's own data. A set says how many samples each
            prompt gets (``evaluation_samples``) and how many are made at once (``batch_size``).
        rewards: What to score with, by default the reward that is trained on; of a ``Combine`` each part.
        every: After how many updates to evaluate; 0 is at the end of training only, None is never: in ``test`` only.
        samples: The samples of a prompt, instead of each set's own number.
        limit: How many prompts of each set to take, by default all.
        split: Which prompts of a set, by default ``val`` while training and ``test`` in ``test``.
        seed: Decides all noises.
        diversity: Whether and how to measure diversity; it needs two samples or more.
        folder: Where to write, by default ``evaluation`` in the trainer's root folder.
    """

    def __init__(
        self,
        prompts: Mapping[str, PromptData] | None = None,
        rewards: list[Reward] | None = None,
        every: int | None = 0,
        samples: int | None = None,
        limit: int | None = None,
        split: str | None = None,
        seed: int = 0,
        diversity: Diversity | None = None,
        folder: str | None = None,
    ) -> None:
        for name, value, least in (("every", every, 0), ("samples", samples, 1), ("limit", limit, 1)):
            if value is not None and value < least:
                raise ValueError(f"RewardEvaluation's {name} is at least {least}, and {value} was given")
        self.prompts = prompts
        self.rewards = None if rewards is None else distinct(rewards)
        self.every, self.samples, self.limit = every, samples, limit
        self.split, self.seed, self.diversity, self.folder = split, seed, diversity, folder
        self.results: Results | None = None
        """The latest."""
        self._base: dict[str, Scores] = {}
        self._untrained: Untrained | None = None
        self._done = -1

    # ------------------------------------------------------------------ when

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks what can be checked before anything is sampled."""
        if not isinstance(pl_module, Alignment):
            raise ValueError(
                f"RewardEvaluation samples from an Alignment, and {type(pl_module).__name__} is none; remove it"
            )
        if stage == "test" or (stage == "fit" and self.every is not None):
            for reward in self._rewards(pl_module):
                reward.check(video=pl_module.chain.model.size.frames is not None)
            self._sets(trainer)
            self._base, self._done = {}, -1
            self._untrained = Untrained(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Scores the base model; a run that begins notes this as its first evaluation."""
        if self.every is None:
            return
        self._done = trainer.global_step
        self._score_base(trainer, pl_module)
        if trainer.global_step == 0 and self._base:
            self._report(trainer, pl_module, self._base, show=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        # several batches may make one update, and one may bring several
        if self.every and trainer.global_step // self.every > self._done // self.every:
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every is not None and trainer.global_step != self._done:
            self._evaluate(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Alignment)
        # a model without training is its own base
        if pl_module.progress.batches:
            self._score_base(trainer, pl_module)
        self._evaluate(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drops the copy of the base model's weights, if there still is one."""
        self._untrained = None

    # ------------------------------------------------------------------ what

    def _evaluate(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Alignment)
        with averaged(trainer, module), self._measuring(trainer, module) as rewards:
            found = {name: self._measure(trainer, module, rewards, held) for name, held in self._sets(trainer).items()}
        self._report(trainer, module, found)

    def _score_base(self, trainer: Trainer, module: LightningModule) -> None:
        """Finds the base model's scores in their file, or computes them; without a way to the base there are none."""
        assert isinstance(module, Alignment)
        assert self._untrained is not None
        if not module.chain.model.trainable:
            return
        if not self._untrained.known:
            warnings.warn(
                f"{type(module.chain.model).__name__} does not remember its weights before training, so the evaluation "
                "shows no base; evaluate the checkpoint with `test`, where the base model is loaded first",
                stacklevel=2,
            )
            return
        with self._untrained.restored(), self._measuring(trainer, module) as rewards:
            self._base = {name: self._based(trainer, module, rewards, h) for name, h in self._sets(trainer).items()}
        self._untrained = None

    def _based(self, trainer: Trainer, module: Alignment, rewards: Sequence[Reward], held: HeldOut) -> Scores:
        key = {**held.key, "seed": self.seed, "rewards": [describe(reward) for reward in rewards]}
        file = BaseScores(self._folder(trainer), key)
        probe = self._probe(module, rewards, held)
        # the ranks must agree on whether to compute
        found = trainer.strategy.broadcast(file.find(probe) if trainer.is_global_zero else None)
        if found is None:
            found = self._measure(trainer, module, rewards, held)
            if trainer.is_global_zero:
                file.keep(probe, found)
        return found

    def _probe(self, module: Alignment, rewards: Sequence[Reward], held: HeldOut) -> dict[str, list[float]]:
        """Returns scores and average colours of the samples of the first prompt."""
        first = (held.prompts[:1], held.samples, self.seed, held.batch)
        scores = measure(module.chain, rewards, *first, self.diversity)
        pixels = torch.cat([painted.pixels for painted in paint(module.chain, *first)])
        colours = pixels.double().mean((-1, -2)).flatten().tolist()
        return {"colours": colours, **{label: values.flatten().tolist() for label, values in scores.items()}}

    def _measure(self, trainer: Trainer, module: Alignment, rewards: Sequence[Reward], held: HeldOut) -> Scores:
        rank, world = trainer.global_rank, trainer.world_size
        rest = (held.samples, self.seed, held.batch, self.diversity, rank, world)
        scores = measure(module.chain, rewards, held.prompts, *rest)
        return {label: gather(module, values, len(held.prompts), world) for label, values in scores.items()}

    @contextmanager
    def _measuring(self, trainer: Trainer, module: Alignment) -> Iterator[Sequence[Reward]]:
        """Within, rewards of one's own are on the module's device, and no global generator is used up."""
        with ExitStack() as stack:
            stack.enter_context(isolate_rng(include_cuda=module.device.type == "cuda"))
            stack.enter_context(trainer.precision_plugin.forward_context())
            yield [reward.to(module.device) for reward in self._rewards(module)]
            for reward in self.rewards or []:
                # several large networks would not leave training the memory it needs
                reward.cpu()

    def _rewards(self, module: Alignment) -> list[Reward]:
        return distinct(parts(module.reward)) if self.rewards is None else self.rewards

    def _sets(self, trainer: Trainer) -> dict[str, HeldOut]:
        split = self.split or ("test" if trainer.testing else "val")
        sets = held_out(trainer, self.prompts, split, self.samples, self.limit)
        for name, held in sets.items():
            if self.diversity and held.samples < 2:
                raise ValueError(
                    f"diversity compares samples of one prompt, and {name} takes one only; set RewardEvaluation's "
                    "samples to 2 or more"
                )
        return sets

    # ------------------------------------------------------------------ telling

    def _report(
        self, trainer: Trainer, module: LightningModule, found: Mapping[str, Scores], show: bool = True
    ) -> None:
        assert isinstance(module, Alignment)
        self._done = trainer.global_step
        sets = {name: self._measurements(module, name, scores) for name, scores in found.items()}
        prompts = {name: held.prompts for name, held in self._sets(trainer).items()}
        self.results = results = Results(updates(trainer, module), sets, prompts, self._facts(trainer, module))
        numbers = results.metrics()
        log_numbers(trainer, module, numbers)
        # for callbacks that monitor a number
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in numbers.items()})
        if show and trainer.is_global_zero:
            self._show(trainer, module, results)
        if show:
            self._alarm(results)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Listener):
                callback.on_evaluation(trainer, module, results)

    def _measurements(self, module: Alignment, name: str, scores: Scores) -> list[Measurement]:
        base = self._base.get(name, {})
        rewards = {reward.label: reward for reward in self._rewards(module)}
        known = {label: (dict(reward.scales), reward.higher_is_better) for label, reward in rewards.items()}
        return [Measurement(label, values, base.get(label), *known.get(label, ())) for label, values in scores.items()]

    def _facts(self, trainer: Trainer, module: Alignment) -> dict[str, object]:
        return {
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "seed": self.seed,
            "rewards": [describe(reward) for reward in self._rewards(module)],
            "device": facts.device(module.device),
            "date": facts.now(),
            "commit": facts.commit(),
            "versions": facts.versions(),
        }

    def _show(self, trainer: Trainer, module: Alignment, results: Results) -> None:
        trainer.print(f"\n{results.text()}\n")
        folder = self._folder(trainer) / ("test" if trainer.testing else "fit")
        write_whole(folder / "results.json", results.json())
        write_whole(folder / "results.csv", results.csv())
        for logger in trainer.loggers:
            for name in results.sets:
                show_table(logger, f"evaluation/{name}", results.table(name), now(module))

    def _alarm(self, results: Results) -> None:
        """Warns of a collapse."""
        if self.diversity is None:
            return
        for name, measurements in results.sets.items():
            value = next(m for m in measurements if m.label == self.diversity.label).value
            if isinstance(value, Estimate) or not value.aligned < self.diversity.floor * value.base:
                continue
            warnings.warn(
                f"the diversity of samples on {name} has fallen to {value.aligned:.3g} from the base model's "
                f"{value.base:.3g}, below the floor of {self.diversity.floor:g} times it; look at the pictures, "
                "and stop earlier or lower the learning rate",
                stacklevel=2,
            )

    def _folder(self, trainer: Trainer) -> Path:
        return Path(self.folder or Path(trainer.default_root_dir) / "evaluation")


def describe(reward: Reward) -> str:
    """Returns what distinguishes a reward's scores: its label and, where it has one, preprocessing or choice of frames."""
    if isinstance(reward, FrameReward):
        return f"{describe(reward.reward)}, {reward.choice}"
    fit = getattr(reward, "fit", None)
    return reward.label if fit is None else f"{reward.label}, {fit}"


def gather(module: Alignment, values: Tensor, count: int, world: int) -> Tensor:
    r"""Returns the rows of all ranks in the order of the prompts: rank :math:`r` brings rows :math:`r + jW`.

    Args:
        module: Speaks to the other ranks.
        values: This rank's rows, with shape :math:`(n, S)`.
        count: The number :math:`N` of all rows.
        world: The number :math:`W` of ranks.

    Returns:
        All rows on the CPU, with shape :math:`(N, S)`.
    """
    if world == 1:
        return values
    # every rank must bring as many: those of the last ranks may have one row less
    padded = values.new_full((-(-count // world), values.shape[1]), torch.nan)
    padded[: len(values)] = values
    everyone = module.all_gather(padded.to(module.device))
    assert isinstance(everyone, Tensor)
    return everyone.transpose(0, 1).flatten(0, 1)[:count].cpu()
