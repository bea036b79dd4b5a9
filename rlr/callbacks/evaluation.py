"""Evaluation on held-out prompts, during training and after it, beside the base model."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from rlr.callbacks.ema import ema_weights
from rlr.callbacks.loggers import log_numbers, show_image, show_samples, show_table, show_video, updates
from rlr.callbacks.prompt_sets import sample_sets
from rlr.callbacks.sample_files import write_samples
from rlr.callbacks.weights import ReferenceWeights
from rlr.data.prompts import PromptData
from rlr.evaluation.evaluator import Display, Drawing, Evaluated, Evaluator, View
from rlr.evaluation.history import append_history
from rlr.evaluation.images import png
from rlr.evaluation.metrics import Metric, as_metrics, parts
from rlr.evaluation.provenance import provenance
from rlr.evaluation.report import say
from rlr.evaluation.results import Results
from rlr.evaluation.sample_table import sample_table
from rlr.evaluation.statistics import Comparison
from rlr.io.atomic import write_whole
from rlr.io.terminal import counted
from rlr.io.video import write_video
from rlr.modules.alignment import Alignment
from rlr.modules.progress import passed
from rlr.rewards.base import Reward


class Scheduled(Callback, ABC):
    """Evaluates every ``every`` updates, when training ends, and in ``test``; the one schedule of all evaluations.

    One batch may bring several updates, and several batches one. The evaluation follows the first batch that reaches or passes a
    multiple of ``every``.

    Args:
        every: The updates between two evaluations; 0 evaluates at the end of training only, None in ``test`` only.
    """

    def __init__(self, every: int | None = 0) -> None:
        at_least(self, every=(every, 0))
        self.every = every
        self._done = -1

    def due(self, before: int, update: int) -> bool:
        """Whether to evaluate after an update, where ``before`` was the update of the evaluation before."""
        return passed(before, update, self.every)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._done = trainer.global_step
        if self.every is not None:
            self.begin(trainer, _alignment(pl_module))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if self.due(self._done, trainer.global_step):
            self._run(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every is not None and trainer.global_step != self._done:
            self._run(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # a model without training is its own base
        if _alignment(pl_module).progress.batches:
            self.begin(trainer, _alignment(pl_module))
        self._run(trainer, pl_module)

    def _run(self, trainer: Trainer, module: LightningModule) -> None:
        self._done = trainer.global_step
        with ema_weights(trainer, _alignment(module)), sampling(trainer, module):
            self.evaluate(trainer, _alignment(module))

    def begin(self, trainer: Trainer, module: Alignment) -> None:
        """Called before training, and before a trained model is tested."""

    @abstractmethod
    def evaluate(self, trainer: Trainer, module: Alignment) -> None:
        """Evaluates the present model; with an :class:`~rlr.callbacks.EMA`, its average."""


class Listener(ABC):
    """A callback that is called after every evaluation."""

    @abstractmethod
    def on_evaluation(self, trainer: Trainer, pl_module: LightningModule, results: Results) -> None:
        """Called on every rank, with the same results."""


class Evaluation(Scheduled):
    r"""Measures samples of held-out prompts, and compares them with those of the base model.

    Sample :math:`k` of prompt :math:`i` has its own noise, whatever the batch and the number of ranks, and the base model gets the
    same. The base model is sampled once in a run, and what was measured is kept in a file for the next. Intervals are bootstrapped
    over prompts, for the paired difference. With an :class:`~rlr.callbacks.EMA` the average is evaluated. In ``test`` nothing else
    is sampled, so there is no ``test/reward`` beside these numbers.

    Everything goes to ``results.json`` and ``results.csv`` in ``folder/fit`` or ``folder/test``, the means and tables to the
    loggers, and a table to the terminal. Scores are shown raw and on their published scale.

    Args:
        prompts: Sets of prompts by name, by default those of the run's own data. A set says how many samples each
            prompt gets (``evaluation_samples``) and how many are made at once (``batch_size``).
        metrics: Metrics and rewards, by default the reward of the training; of a ``Combine`` each part.
        displays: What to draw of the samples, such as :class:`~rlr.evaluation.SampleGrid`.
        every: The updates between two evaluations; 0 evaluates at the end of training only, None in ``test`` only.
        samples: The samples per prompt, instead of the number of each set.
        limit: The most prompts of each set, by default all.
        split: The split of a set, by default ``val`` while training and ``test`` in ``test``.
        seed: The seed of all noise.
        folder: Where to write, by default ``evaluation`` in the root folder of the trainer.
    """

    def __init__(
        self,
        prompts: Mapping[str, PromptData] | None = None,
        metrics: list[Metric | Reward] | None = None,
        displays: list[Display] | None = None,
        every: int | None = 0,
        samples: int | None = None,
        limit: int | None = None,
        split: str | None = None,
        seed: int = 0,
        folder: str | None = None,
    ) -> None:
        super().__init__(every)
        at_least(self, samples=(samples, 1), limit=(limit, 1))
        if metrics is not None and not metrics and not displays:
            raise ValueError("Evaluation: expected a metric or a display, found none; name one, or leave metrics out")
        self.prompts, self.metrics = prompts, None if metrics is None else as_metrics(metrics)
        self.displays = list(displays or [])
        self.samples, self.limit, self.split, self.seed, self.folder = samples, limit, split, seed, folder
        self.results: Results | None = None
        """The latest."""
        self._base: dict[str, Evaluated] = {}
        self._reference: ReferenceWeights | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks what can be checked before anything is sampled."""
        module = _alignment(pl_module, type(self).__name__)
        if stage == "test" or (stage == "fit" and self.every is not None):
            for evaluator in self._evaluators(trainer, module).values():
                evaluator.check(video=module.chain.model.size.frames is not None)
            self._base, self._done = {}, -1
            self._reference = ReferenceWeights(module)
        # samples of the test's own batches would be made besides, and give another number under the same name
        module.tests = False

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drops the copy of the base model's weights, if there still is one."""
        self._reference = None
        if isinstance(pl_module, Alignment):
            pl_module.tests = True

    def begin(self, trainer: Trainer, module: Alignment) -> None:
        """Evaluates the base model; a run that begins notes this as its first evaluation."""
        reference, self._reference = self._reference, None
        if not module.chain.model.trainable or reference is None:
            return
        if not reference.known:
            warnings.warn(
                f"{type(module.chain.model).__name__} does not remember its weights before training, so the evaluation "
                "shows no base; evaluate the checkpoint with `test`, where the base model is loaded first",
                stacklevel=2,
            )
            return
        with reference.restored(), sampling(trainer, module), self._on_device(module):
            folder = self._folder(trainer)
            evaluators = self._evaluators(trainer, module)
            self._base = {name: evaluator.base(module.chain, folder) for name, evaluator in evaluators.items()}
        if trainer.global_step == 0 and not trainer.testing:
            self._report(trainer, module, evaluators, self._base, show=False)

    def evaluate(self, trainer: Trainer, module: Alignment) -> None:
        with self._on_device(module):
            evaluators = self._evaluators(trainer, module)
            found = {name: evaluator.evaluate(module.chain) for name, evaluator in evaluators.items()}
        self._report(trainer, module, evaluators, found)

    @contextmanager
    def _on_device(self, module: Alignment) -> Iterator[None]:
        for metric in self.metrics or []:
            metric.to(module.device)
        yield
        for metric in self.metrics or []:
            # several large networks would not leave training the memory that it needs
            metric.to(torch.device("cpu"))

    def _evaluators(self, trainer: Trainer, module: Alignment) -> dict[str, Evaluator]:
        split = self.split or ("test" if trainer.testing else "val")
        sets = sample_sets(trainer, self.prompts, split, self.samples, self.limit, self.seed)
        metrics = as_metrics(parts(module.reward)) if self.metrics is None else self.metrics
        shown = {name: {row for d in self.displays for row in d.rows(samples)} for name, samples in sets.items()}
        return {
            name: Evaluator(samples, metrics, shown[name], partial(counted, f"evaluating {name}, sample"))
            for name, samples in sets.items()
        }

    # ------------------------------------------------------------------ what is written and shown

    def _report(
        self,
        trainer: Trainer,
        module: Alignment,
        evaluators: Mapping[str, Evaluator],
        found: Mapping[str, Evaluated],
        show: bool = True,
    ) -> None:
        sets = {name: evaluators[name].measurements(now, self._base.get(name)) for name, now in found.items()}
        prompts = {name: evaluator.samples.prompts for name, evaluator in evaluators.items()}
        self.results = results = Results(updates(trainer, module), sets, prompts, self._facts(trainer, module))
        # files first: what comes after them may fail
        if show and trainer.is_global_zero:
            if results.measured:
                results.write(self._folder(trainer) / ("test" if trainer.testing else "fit"))
            self._draw(trainer, module, evaluators, found)
        if trainer.is_global_zero and results.measured and not trainer.testing:
            append_history(self._folder(trainer) / "fit", results)
        numbers = results.metrics()
        log_numbers(trainer, module, numbers)
        # for callbacks that monitor a number
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in numbers.items()})
        if show and trainer.is_global_zero:
            self._tabulate(trainer, module, evaluators, found, results)
            if results.measured:
                self.state(results)
        if show:
            self._warn(evaluators, results)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Listener):
                callback.on_evaluation(trainer, module, results)

    def _tabulate(
        self,
        trainer: Trainer,
        module: Alignment,
        evaluators: Mapping[str, Evaluator],
        found: Mapping[str, Evaluated],
        results: Results,
    ) -> None:
        """Passes tables of the measurements, and of the samples that are shown, to the loggers."""
        step, fps = updates(trainer, module), module.chain.model.size.fps
        for name, evaluator in evaluators.items():
            base = self._base.get(name)
            shown = base.pixels if base else None
            table = sample_table(evaluator.samples, results.sets[name], found[name].pixels, shown, fps)
            for logger in trainer.loggers:
                if results.sets[name]:
                    show_table(logger, f"tables/{name}", results.table(name), step)
                if table.rows:
                    show_samples(logger, f"tables/samples/{name}", table, step)

    def state(self, results: Results) -> None:
        """Prints the tables."""
        say(f"\n{results.text()}\n")

    def _facts(self, trainer: Trainer, module: Alignment) -> dict[str, object]:
        metrics = as_metrics(parts(module.reward)) if self.metrics is None else self.metrics
        return {
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "seed": self.seed,
            "metrics": [metric.description for metric in metrics],
            **provenance(module.device),
        }

    def _draw(
        self, trainer: Trainer, module: Alignment, evaluators: Mapping[str, Evaluator], found: Mapping[str, Evaluated]
    ) -> None:
        for display in self.displays:
            folder = Path(display.folder or Path(trainer.default_root_dir) / "samples")
            # those of a test are of other prompts, and do not replace those of the training
            folder = folder / "test" if trainer.testing else folder
            for name, evaluator in evaluators.items():
                metric = next((metric for metric in evaluator.metrics if metric.per_sample), None)
                update, fps = updates(trainer, module), module.chain.model.size.fps
                view = View(evaluator.samples, update, metric, found[name], self._base.get(name), fps)
                place = folder if len(evaluators) == 1 else folder / name
                drawing = display.draw(view)
                self._show(trainer, module, place / f"{update:06d}", drawing)
                write_samples(place / "last", name, drawing, fps)

    def _show(self, trainer: Trainer, module: Alignment, stem: Path, drawing: Drawing) -> None:
        """Writes a drawing, and passes it to the loggers."""
        write_whole(stem.with_suffix(".png"), png(drawing.image))
        if drawing.video:
            write_video(stem.with_suffix(".mp4"), drawing.video.frames, drawing.video.fps)
        for logger in trainer.loggers:
            if drawing.video:
                show_video(logger, "media/samples", drawing.video, updates(trainer, module))
            else:
                show_image(logger, "media/samples", drawing.image, updates(trainer, module))

    def _warn(self, evaluators: Mapping[str, Evaluator], results: Results) -> None:
        """Warns of what a metric finds alarming."""
        for name, evaluator in evaluators.items():
            values = {m.label: m.value for m in results.sets[name]}
            for metric in evaluator.metrics:
                value = values[metric.label]
                if isinstance(value, Comparison) and (text := metric.warning(value)):
                    warnings.warn(f"the {metric.label} of samples on {name} {text}", stacklevel=2)

    def _folder(self, trainer: Trainer) -> Path:
        return Path(self.folder or Path(trainer.default_root_dir) / "evaluation")


def _alignment(module: LightningModule, callback: str = "an evaluation") -> Alignment:
    if not isinstance(module, Alignment):
        raise ValueError(
            f"{callback}: expected an Alignment as the model, found {type(module).__name__}; remove {callback}"
        )
    return module


@contextmanager
def sampling(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Within, the precision is that of the trainer, and no global generator is advanced."""
    with ExitStack() as stack:
        stack.enter_context(isolate_rng(include_cuda=module.device.type == "cuda"))
        stack.enter_context(trainer.precision_plugin.forward_context())
        yield


def at_least(owner: object, **numbers: tuple[int | None, int]) -> None:
    """Raises a ``ValueError`` for the first number, of pairs of a number or None and its least value, that is too small."""
    for name, (value, least) in numbers.items():
        if value is not None and value < least:
            raise ValueError(f"{type(owner).__name__}: expected {name} >= {least}, found {value}")
