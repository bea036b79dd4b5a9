"""One update of the weights: backward passes, average over ranks, guard, clipping, optimizer step."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn

from rlr.distributed import any_rank, gather_objects, is_split
from rlr.estimators.base import Term
from rlr.models.base import DiffusionModel
from rlr.modules.gradients import GradientAccumulator, norm
from rlr.modules.memory import Memory
from rlr.modules.optimization import Optimization
from rlr.modules.profiler import Profiler


@dataclass(frozen=True)
class StepReport:
    """What an update did.

    Args:
        failure: Why the weights did not change; None where they did.
        gradients: Gradient norms and cosines of this rank, by log name.
        terms: The sums of the metrics of this rank's terms, by log name; the same names on all ranks.
    """

    failure: str | None = None
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    terms: Mapping[str, Tensor] = field(default_factory=dict)


class Updater:
    """Turns the terms of an update into a step of the optimizer.

    An update whose losses, gradients or rewards are not finite on some rank is skipped on all ranks.

    Args:
        module: The module whose optimizer steps, and whose trainer knows ranks and precision.
        model: The model whose weights are trained.
        optimization: How the weights change.
        memory: What is given up to save memory.
    """

    def __init__(
        self,
        module: LightningModule,
        model: DiffusionModel,
        optimization: Optimization,
        memory: Memory,
    ) -> None:
        self.module = module
        self.model = model
        self.optimization = optimization
        self.memory = memory
        self.failures = 0
        """The number of skipped updates in a row."""
        self._norm: Tensor | None = None
        self._factors: dict[str, float] = {}

    @property
    def weights(self) -> list[nn.Parameter]:
        r"""The trained weights :math:`\theta`."""
        return list(self.model.trainable.values())

    def step(self, terms: Iterator[Term], profiler: Profiler, fault: Callable[[], str | None]) -> StepReport:
        """Makes an update.

        Args:
            terms: The surrogate losses of the update. The backward of each runs before the next is asked for.
            profiler: Measures each kind of term.
            fault: Says, once all terms are there, what is wrong with the rewards; None if nothing is.

        Raises:
            FloatingPointError: After ``max_bad_steps`` skipped updates in a row.
            ValueError: If there is no term although no reward is at fault.
        """
        accumulator, self._norm = GradientAccumulator(self.weights, self.optimization.by_kind), None
        self._backward(terms, accumulator, profiler)
        with profiler.section("optimizer"):
            failure = self._share(self._failure(accumulator, fault()))
            # only now: no rank has terms where the rewards of one are at fault; a rank may have no sample of a minibatch
            if failure is None and not any_rank(bool(accumulator.entries)):
                raise ValueError("the estimator yielded no term for an update; expected at least one")
            self._apply(accumulator, failure)
        self._guard(failure)
        return StepReport(failure, dict(self._gradients(accumulator)), self._sums(accumulator))

    def _backward(self, terms: Iterator[Term], accumulator: GradientAccumulator, profiler: Profiler) -> None:
        # gradients are averaged over ranks once, after the last term: which one is the last is known only afterwards
        with self._unsynchronized():
            profiler.start()
            while (term := self._next(terms)) is not None:
                accumulator.add(term, self.module.manual_backward)
                profiler.stop(term.name)
                del term  # its graph must be gone before the next one is built
                profiler.start()

    def _next(self, terms: Iterator[Term]) -> Term | None:
        # a generator builds its next graph while it is asked, so this is where graphs are built
        with self.memory.saving(self.module.parameters(), self.module.device):
            return next(terms, None)

    def _unsynchronized(self) -> AbstractContextManager[object]:
        strategy = self.module.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def _failure(self, accumulator: GradientAccumulator, fault: str | None) -> str | None:
        """Returns the first failure of this rank; float16 may overflow until its scale is found."""
        return fault or accumulator.failure(gradients=self._scale == 1)

    @staticmethod
    def _share(failure: str | None) -> str | None:
        failed = any_rank(failure is not None)
        return failure or ("a loss, gradient or reward of another process is not finite" if failed else None)

    def _apply(self, accumulator: GradientAccumulator, failure: str | None) -> None:
        optimizer: Any = self.module.optimizers()
        if self.optimization.term_weights is not None:
            self._weigh(accumulator, failure)
        else:
            self._average(self._gradients_to_average())
        if failure is None:
            optimizer.step()
            overflow = self._scale > 1 and accumulator.failure() is not None
            if (self.optimization.warmup or self.optimization.decay_steps) and not overflow:
                self.module.lr_schedulers().step()  # type: ignore[union-attr]
        optimizer.zero_grad()

    def _gradients_to_average(self) -> list[Tensor]:
        """Returns the gradients; with several ranks each weight has one, because all ranks must average the same ones."""
        weights = self.weights
        if self.module.trainer.world_size > 1:
            for weight in weights:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        return [weight.grad for weight in weights if weight.grad is not None]

    def _average(self, gradients: Sequence[Tensor]) -> None:
        """Averages gradients over ranks, in place."""
        if self.module.trainer.world_size == 1:
            return
        strategy: Any = self.module.trainer.strategy
        for gradient in gradients:
            # those of weights that are split were averaged in the backward pass
            if not is_split(gradient):
                gradient.copy_(strategy.reduce(gradient, reduce_op="mean"))

    def _weigh(self, accumulator: GradientAccumulator, failure: str | None) -> None:
        """Sets the gradient to the weighted sum of those of the kinds of terms, averaged over ranks."""
        shrinkage = self.optimization.term_weights
        assert shrinkage is not None
        # in one order on all ranks, which must average the same tensors
        names = sorted({name for names in gather_objects(list(accumulator.kinds)) for name in names})
        for name in set(names) - accumulator.kinds.keys():
            accumulator.kinds[name] = [torch.zeros_like(weight) for weight in self.weights]
        kinds = {name: accumulator.kinds[name] for name in names}
        for gradients in kinds.values():
            self._average(gradients)
        known, scale = shrinkage.weights(), self._scale
        self._factors = {name: known.get(name, 1.0) for name in names}
        accumulator.weigh(self._factors)
        # a float16 gradient may overflow until its scale is found; all ranks have the same ones here
        if failure is None and all(bool(g.isfinite().all()) for gradients in kinds.values() for g in gradients):
            shrinkage.update({name: [g / scale for g in gradients] for name, gradients in kinds.items()})

    def clip(self) -> None:
        """Clips the gradient; to be called when a scaled gradient has been unscaled."""
        weights = self.weights
        self._norm = norm([w.grad for w in weights if w.grad is not None])
        if self.optimization.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(weights, self.optimization.clip_norm, self._norm)

    def _guard(self, failure: str | None) -> None:
        if failure is None:
            self.failures = 0
            return
        self.failures += 1
        if self.failures >= self.optimization.max_bad_steps:
            raise FloatingPointError(
                f"{failure}; this is update {self.failures} in a row without a finite gradient, so training stops with the "
                "weights of the last good update"
            )
        warnings.warn(f"{failure}; this update is skipped", stacklevel=2)

    @staticmethod
    def _sums(accumulator: GradientAccumulator) -> dict[str, Tensor]:
        """Returns the sums of the terms' metrics; a rank without a term has zeros, since all ranks log the same names together."""
        names = sorted({name for names in gather_objects(list(accumulator.sums)) for name in names})
        zero = torch.zeros((), device=accumulator.weights[0].device)
        return {name: accumulator.sums.get(name, zero) for name in names}

    @property
    def _scale(self) -> float:
        """The factor by which float16 mixed precision multiplies losses; 1 otherwise."""
        scaler = getattr(self.module.trainer.precision_plugin, "scaler", None)
        return scaler.get_scale() if scaler is not None else 1.0

    def _gradients(self, accumulator: GradientAccumulator) -> Iterator[tuple[str, Tensor]]:
        if self.optimization.log_terms:
            yield from accumulator.metrics(self._scale)
        for name, factor in self._factors.items():
            yield f"weight/{name}", torch.tensor(factor)
        if self._norm is not None:
            yield "gradient/total", self._norm
