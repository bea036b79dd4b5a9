"""How the weights change: optimizer, learning rate schedule, gradient clipping, batches an update."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from rlr.modules.term_weights import Shrinkage


@dataclass(frozen=True)
class LearningRateSchedule:
    r"""The factor on the learning rate.

    In update :math:`u` it is :math:`\min\bigl(1, \frac{u + 1}{w}, \frac{U - u}{\min(d, U) + 1}\bigr)`.

    Args:
        warmup: The updates :math:`w` over which it rises; 0 for none.
        decay_steps: The updates :math:`d` at the end over which it falls; 0 for none.
        updates: The updates :math:`U` of the run; used only where ``decay_steps`` is not 0.
    """

    warmup: int
    decay_steps: int
    updates: int

    def __call__(self, update: int) -> float:
        """Returns the factor of an update, counted from 0, in [0, 1]."""
        rise = (update + 1) / self.warmup if self.warmup else 1.0
        fall = (self.updates - update) / (min(self.decay_steps, self.updates) + 1) if self.decay_steps else 1.0
        return max(0.0, min(1.0, rise, fall))


@dataclass(frozen=True)
class Optimization:
    r"""How the weights change.

    Args:
        lr: The learning rate.
        betas: AdamW's :math:`\beta_1, \beta_2`.
        weight_decay: AdamW's weight decay.
        optimizer: Makes another optimizer than AdamW from the weights; the three arguments above are then unused.
        clip_norm: The largest norm of the gradient; longer gradients are scaled down to it. None does not clip.
        accumulate: The number of batches in a round, at least 1. An estimator makes one update of a round, with the mean
            gradient of its batches, or several, as DDPO does.
        warmup: The number of first updates over which the learning rate rises linearly.
        decay_steps: The number of last updates of ``trainer.max_steps`` over which the learning rate falls linearly
            towards 0. The noise that single gradients have left in the weights then averages out.
        max_bad_steps: The number of consecutive updates without a finite gradient after which training stops, at least 1.
        log_terms: Whether to log the gradient norm of each kind of term and the cosines between them, at the cost of one
            more copy of the trained weights a kind.
        term_weights: Weighs the kinds of terms against each other, which trades bias for variance; None adds them up.
        log_kl_every: The number of updates between two measurements of the divergence from the base model where there is
            no penalty, at the cost of one pass of the base model a step; 0 never measures.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    optimizer: OptimizerCallable | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    warmup: int = 0
    decay_steps: int = 0
    max_bad_steps: int = 5
    log_terms: bool = True
    term_weights: Shrinkage | None = None
    log_kl_every: int = 25

    @property
    def by_kind(self) -> bool:
        """Whether the gradients of each kind of term are kept apart."""
        return self.log_terms or self.term_weights is not None

    def __post_init__(self) -> None:
        """Raises a ``ValueError`` for a value out of its range."""
        least = {"accumulate": 1, "warmup": 0, "decay_steps": 0, "max_bad_steps": 1, "log_kl_every": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"optimization.{name}: expected at least {value}, got {getattr(self, name)}")
        for name in ("lr", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"optimization.{name}: expected a number of at least 0, got {getattr(self, name)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimization.betas: expected two numbers in [0, 1), got {self.betas}")
        # a norm of 0 would scale every gradient to 0, and training would continue silently
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(
                f"optimization.clip_norm: expected a positive number, got {self.clip_norm}; set null not to clip"
            )

    def configure(self, weights: Sequence[nn.Parameter], updates: int) -> Any:
        """Returns what a LightningModule's ``configure_optimizers`` returns.

        Args:
            weights: The trained weights.
            updates: The number of updates of the run; negative where the run has no end.

        Raises:
            ValueError: If the learning rate is to fall towards an end that the run does not have.
        """
        optimizer = self._make(list(weights))
        if not (self.warmup or self.decay_steps):
            return optimizer
        if self.decay_steps and updates < 0:
            raise ValueError(
                f"optimization.decay_steps={self.decay_steps} counts from the end of the run, and trainer.max_steps is not "
                "set; set trainer.max_steps"
            )
        schedule = LearningRateSchedule(self.warmup, self.decay_steps, updates)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _make(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.optimizer is not None:
            return self.optimizer(weights)
        return torch.optim.AdamW(weights, self.lr, betas=self.betas, weight_decay=self.weight_decay)


class Setting(NamedTuple):
    """A setting of an optimizer that a resumed run changes: of which group, its name, its value in the checkpoint and now."""

    group: int
    name: str
    before: Any
    now: Any


class Settings:
    """The settings of an optimizer as the config asks for them, which the state of a checkpoint replaces.

    Args:
        optimizer: The new optimizer.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._asked = [_settings(group) for group in optimizer.param_groups]

    def restore(self, optimizer: torch.optim.Optimizer, schedulers: Sequence[Any], origin: str) -> None:
        """Gives an optimizer whose state has been loaded the settings that the config asks for, and warns of each that differs.

        Args:
            optimizer: The optimizer.
            schedulers: Its learning rate schedules.
            origin: What a message calls the checkpoint.
        """
        for group, name, before, now in self._changes(optimizer):
            own = optimizer.param_groups[group]
            if name == "lr":
                _set_lr(own, before, now)
                for scheduler in schedulers:
                    scheduler.base_lrs[group] = now
            else:
                own[name] = now
            if group == 0:
                warnings.warn(
                    f"{origin} was written with {name} {before}; the run continues with {name} {now}", stacklevel=2
                )

    def _changes(self, optimizer: torch.optim.Optimizer) -> list[Setting]:
        pairs = zip(self._asked, map(_settings, optimizer.param_groups), strict=True)
        return [
            Setting(index, name, found[name], asked[name])
            for index, (asked, found) in enumerate(pairs)
            for name in asked
            if name in found and found[name] != asked[name]
        ]


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a group of weights; the learning rate is that before its schedule."""
    plain = {key: _plain(value) for key, value in group.items() if key not in ("params", "initial_lr")}
    return {**plain, "lr": _plain(group.get("initial_lr", group["lr"]))}


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.item()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _set_lr(group: dict[str, Any], before: float, now: float) -> None:
    """Sets a learning rate, and keeps the factor of its schedule."""
    group["lr"] = now * (group["lr"] / before) if before else now
    if "initial_lr" in group:
        group["initial_lr"] = now
