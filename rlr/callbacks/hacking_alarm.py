"""Reward hacking: the reward that is trained on rises while rewards on held-out prompts fall."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from rlr.callbacks.evaluation import Evaluation, Listener
from rlr.evaluation.results import Measurement, Results
from rlr.modules.alignment import Alignment
from rlr.rewards.base import Reward


@dataclass
class Look:
    """The part of an evaluation that the alarm keeps.

    Args:
        update: After how many updates.
        held_out: By name, the scores of every prompt, up is better; one that is not finite counts in no comparison.
        training: The training rewards of the batches since the evaluation before, up is better.
    """

    update: int
    held_out: dict[str, Tensor]
    training: list[float] = field(default_factory=list)


class Change(NamedTuple):
    """A change and its standard error."""

    size: float
    error: float

    def exceeds(self, errors: float) -> bool:
        """Whether it is a rise of more than so many standard errors."""
        return self.size > 0 and self.size > errors * self.error


class HackingAlarm(Callback, Listener):
    r"""Warns when the training reward rises while rewards on held-out prompts fall, and stops if asked to.

    The latest evaluation of :class:`~rlr.callbacks.Evaluation` is compared with the one ``window`` evaluations
    before. *Rises*: the slope of a straight line through the training rewards of the batches between is positive by
    more than ``tolerance`` standard errors. *Falls*: so is the mean drop of a held-out reward over its prompts, each
    compared with itself on the same noise. Each episode is reported once; it ends with an evaluation at which one of the
    two no longer holds.

    Args:
        window: Over how many evaluations to look back.
        tolerance: How many standard errors a change must exceed.
        stop: Whether to stop training.
    """

    def __init__(self, window: int = 3, tolerance: float = 2.0, stop: bool = False) -> None:
        if window < 1 or tolerance < 0:
            raise ValueError(f"HackingAlarm needs window ≥ 1 and tolerance ≥ 0, and {window}, {tolerance} were given")
        self.window, self.tolerance, self.stop = window, tolerance, stop
        self.ringing = False
        """Whether an episode goes on."""
        self._looks: list[Look] = []
        self._training: list[float] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that held-out rewards are measured during training."""
        evaluations = [c for c in trainer.callbacks if isinstance(c, Evaluation)]  # type: ignore[attr-defined]
        if stage == "fit" and not any(evaluation.every for evaluation in evaluations):
            raise ValueError(
                "HackingAlarm watches held-out rewards during training, and no Evaluation measures them; add one "
                "with every=50 or so, or remove the alarm"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Alignment)
        mean = float(trainer.callback_metrics["reward/mean"])
        reward = mean if pl_module.reward.higher_is_better else -mean
        if math.isfinite(reward):
            self._training.append(reward)

    def on_evaluation(self, trainer: Trainer, pl_module: LightningModule, results: Results) -> None:
        if trainer.testing:
            return
        held_out = {name: _signed(m) for name, m in _rewards(results)}
        self._looks = [*self._looks[-self.window :], Look(results.update, held_out, self._training)]
        self._training = []
        rise, falls = self._rise(), dict(self._falls())
        hacked = rise is not None and rise.exceeds(self.tolerance) and bool(falls)
        if hacked and not self.ringing:
            assert rise is not None
            assert isinstance(pl_module, Alignment)
            warnings.warn(self._sentence(pl_module.reward, rise, falls, dict(_rewards(results))), stacklevel=2)
            trainer.should_stop = trainer.should_stop or self.stop
        self.ringing = hacked

    def _rise(self) -> Change | None:
        rewards = [reward for look in self._looks[1:] for reward in look.training]
        return trend(rewards) if len(self._looks) > self.window and len(rewards) > 2 else None

    def _falls(self) -> Iterator[tuple[str, Change]]:
        if len(self._looks) <= self.window:
            return
        first, last = self._looks[0].held_out, self._looks[-1].held_out
        for name in first.keys() & last.keys():
            if len(first[name]) == len(last[name]) and len(change := finite(first[name] - last[name])) > 1:
                drop = mean(change)
                if drop.exceeds(self.tolerance):
                    yield name, drop

    def _sentence(
        self, reward: Reward, rise: Change, falls: dict[str, Change], measured: dict[str, Measurement]
    ) -> str:
        drops = "; ".join(_fall(name, falls[name], measured[name]) for name in sorted(falls))
        scaled = "".join(f", {scale} by {factor * rise.size:.3g}" for scale, factor in reward.scales.items())
        first, last = self._looks[0].update, self._looks[-1].update
        return (
            f"the training reward {reward.label} got better by {rise.size:.3g} (± {rise.error:.1g}){scaled} from update "
            f"{first} to {last} while held-out rewards got worse: {drops}; the model may be gaming its reward, "
            f"{'so training stops' if self.stop else 'so look at the samples'}; go back to an earlier checkpoint, or "
            "train on a combination of rewards"
        )

    def state_dict(self) -> dict[str, Any]:
        looks = [asdict(look) for look in self._looks]
        return {"looks": looks, "training": list(self._training), "ringing": self.ringing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._looks = [Look(**look) for look in state_dict["looks"]]
        self._training, self.ringing = list(state_dict["training"]), state_dict["ringing"]


def trend(values: Sequence[float]) -> Change:
    r"""Returns the rise over :math:`n > 2` values of the straight line that fits them best, and its standard error."""
    y = torch.tensor(values, dtype=torch.float64)
    x = torch.linspace(-0.5, 0.5, len(y), dtype=torch.float64)
    slope = (x * y).sum() / x.square().sum()
    residual = y - y.mean() - slope * x
    return Change(slope.item(), (residual.square().sum() / (len(y) - 2) / x.square().sum()).sqrt().item())


def mean(values: Tensor) -> Change:
    r"""Returns the mean of :math:`N > 1` values and its standard error."""
    return Change(values.mean().item(), values.std().item() / math.sqrt(len(values)))


def finite(values: Tensor) -> Tensor:
    """Returns those of some values that are finite."""
    return values[values.isfinite()]


def _rewards(results: Results) -> Iterator[tuple[str, Measurement]]:
    for name, measurements in results.sets.items():
        yield from ((f"{m.label} on {name}", m) for m in measurements if m.per_sample)


def _signed(measurement: Measurement) -> Tensor:
    return measurement.scores.double().mean(1) * (1 if measurement.higher_is_better else -1)


def _fall(name: str, drop: Change, measurement: Measurement) -> str:
    now = finite(measurement.scores.double()).mean().item()
    scaled = [f", {scale} by {k * drop.size:.3g} to {k * now:.4g}" for scale, k in measurement.scales.items()]
    return f"{name} by {drop.size:.3g} (± {drop.error:.1g}) to {now:.4g}{''.join(scaled)}"
