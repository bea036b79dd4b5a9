r"""What is measured on samples: a reward, their diversity, their distance from other images.

A new metric is one class. It says with :meth:`Metric.measure` what to keep of each sample, and, unless that is the value of the
sample, with :meth:`Metric.reduce` what the values of a set are. Ranks, batches and broken samples are taken care of here.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from rlr.distributed import world_size
from rlr.evaluation.features import Features
from rlr.evaluation.provenance import identity
from rlr.evaluation.samples import SampleBatch, SampleSet
from rlr.evaluation.statistics import Comparison
from rlr.rewards.base import Reward
from rlr.rewards.combine import Combine
from rlr.rewards.frames import FrameReward


class Metric(ABC):
    r"""A measurement of the samples of a set: ``begin``, ``update`` for every batch, ``compute``.

    With several processes each one updates with its own samples, and all compute the same.
    """

    higher_is_better: bool = True
    scales: Mapping[str, float] = MappingProxyType({})
    """Factors from the value to the scales of published tables, such as ``{"x100": 100.0}``."""
    per_sample: ClassVar[bool] = True
    """Whether each sample has a value of its own."""
    least_samples: ClassVar[int] = 1
    """The fewest samples per prompt that the metric needs."""

    @property
    def label(self) -> str:
        """The name in tables and logs: by default that of the class."""
        return type(self).__name__

    @abstractmethod
    def measure(self, batch: SampleBatch) -> Tensor:
        r"""Returns what is kept of each sample, such as a score or features, with shape :math:`(B, *)`."""

    def reduce(self, values: Tensor) -> Tensor:
        r"""Returns the values of a set from what :meth:`measure` has returned.

        Args:
            values: All of it in float32 on the CPU, with shape :math:`(N, S, *)`: prompts, samples. Rows of samples that are not
                finite are NaN.

        Returns:
            One value per sample, :math:`(N, S)`, per prompt, :math:`(N, 1)`, or in all, :math:`()`.
        """
        return values

    def check(self, samples: SampleSet, video: bool) -> None:
        """Checks whether the samples can be measured, before any is made.

        Raises:
            ValueError: If there are too few samples per prompt.
        """
        if samples.samples < self.least_samples:
            raise ValueError(
                f"{self.label} compares samples of one prompt: expected samples >= {self.least_samples}, found "
                f"{samples.samples}; set samples to {self.least_samples} or more"
            )

    def to(self, device: torch.device) -> None:
        """Moves the networks and features among the attributes to a device."""
        for value in vars(self).values():
            if isinstance(value, nn.Module | Features):
                value.to(device)

    def begin(self, samples: SampleSet) -> None:
        """Starts with a set of samples."""
        self._samples, self._rows = samples, list[int]()
        self._values = list[Tensor]()

    def update(self, batch: SampleBatch) -> None:
        """Measures a batch."""
        with torch.inference_mode():
            values = self.measure(batch).float().cpu()
        if len(values) != len(batch.rows):
            raise ValueError(
                f"{self.label}: expected {len(batch.rows)} values, one per sample, found shape {tuple(values.shape)}"
            )
        self._rows += batch.rows
        self._values.append(values.clone())

    def compute(self) -> Tensor:
        """Returns the values of the set, the same on all ranks; see :meth:`reduce`."""
        found = [part for part in gather_objects((self._rows, self._values)) if part[0]]
        rows = [row for some, _ in found for row in some]
        known = torch.cat([values for _, some in found for values in some]) if rows else torch.empty(0)
        # a sample that is not finite was not measured
        values = torch.full((len(self._samples), *known.shape[1:]), torch.nan, dtype=torch.float32)
        values[rows] = known
        return self.reduce(values.unflatten(0, (len(self._samples.prompts), self._samples.samples)))

    def head(self, count: int = 64) -> list[float]:
        """Returns the first numbers that this rank has kept: another model would have others."""
        return torch.cat([values.flatten()[:count] for values in self._values] or [torch.empty(0)])[:count].tolist()

    def parts(self) -> Mapping[str, Tensor]:
        """Returns further values of the set by name, of the shapes of :meth:`compute`; called after it."""
        return {}

    def warning(self, value: Comparison) -> str | None:
        """Returns what is alarming in a comparison with the base model, and what to do, or None."""
        return None

    @property
    def description(self) -> str:
        """What distinguishes the values, in a few words for readers."""
        return self.label

    def identity(self) -> object:
        """Returns what the values depend on beside the samples, as plain data.

        Raises:
            LookupError: If that is not known.
        """
        return identity(self)


class RewardMetric(Metric):
    """The score of a reward.

    Args:
        reward: The reward.
    """

    def __init__(self, reward: Reward) -> None:
        self.reward = reward
        self.higher_is_better = reward.higher_is_better
        self.scales = dict(reward.scales)

    @property
    def label(self) -> str:
        return self.reward.label

    def measure(self, batch: SampleBatch) -> Tensor:
        return self.reward(batch.pixels, batch.prompts)

    def check(self, samples: SampleSet, video: bool) -> None:
        super().check(samples, video)
        self.reward.check(video=video)

    @property
    def description(self) -> str:
        return describe(self.reward)


def describe(reward: Reward) -> str:
    """Returns the label of a reward and, where it has one, its preprocessing or choice of frames."""
    if isinstance(reward, FrameReward):
        return f"{describe(reward.reward)}, {reward.choice}"
    fit = getattr(reward, "fit", None)
    return reward.label if fit is None else f"{reward.label}, {fit}"


def as_metrics(chosen: Sequence[Metric | Reward]) -> list[Metric]:
    """Returns metrics as they are, and rewards as metrics.

    Raises:
        ValueError: If two have the same label.
    """
    metrics = [RewardMetric(one) if isinstance(one, Reward) else one for one in chosen]
    labels = [metric.label for metric in metrics]
    for label in (label for k, label in enumerate(labels) if label in labels[:k]):
        raise ValueError(
            f"metrics: expected labels that differ, found {label} twice; evaluate the two in two callbacks with a folder each"
        )
    return metrics


def parts(reward: Reward) -> list[Reward]:
    """Returns the rewards that a combination is made of, since its own scale may change during training.

    Those of a combination on frames of videos are each on these frames.
    """
    if isinstance(reward, FrameReward) and isinstance(reward.reward, Combine):
        return [FrameReward(part, reward.choice) for part in parts(reward.reward)]
    if not isinstance(reward, Combine):
        return [reward]
    return [part for member in _members(reward) for part in parts(member)]


def _members(reward: Combine) -> Iterator[Reward]:
    return (member for member in reward.rewards if isinstance(member, Reward))


def gather_objects(value: Any) -> list[Any]:
    """Returns the value of each rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
