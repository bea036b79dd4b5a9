"""The contract of a reward."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True)
class Scores:
    r"""The scores of a batch of samples.

    Args:
        values: The scores as the reward returns them, with shape :math:`(B)`; with a graph where the reward has one.
        parts: The scores of which a combined reward is made, by name, with shape :math:`(B, *)` and without a graph.
        higher_is_better: Whether a higher score is better.
        fault: What made a score not finite, as a clause of an error message; None where all scores are finite.
    """

    values: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    higher_is_better: bool = True
    fault: str | None = None

    @property
    def objective(self) -> Tensor:
        r"""What estimators maximize: the scores, negated where lower is better, with shape :math:`(B)`."""
        return self.values if self.higher_is_better else -self.values

    def detach(self) -> Self:
        """Returns the scores without a graph."""
        return replace(self, values=self.values.detach())

    def select(self, rows: Tensor) -> Self:
        """Returns the scores of some samples, given by their numbers in the batch."""
        here = rows.to(self.values.device)
        return replace(self, values=self.values[here], parts={name: part[here] for name, part in self.parts.items()})

    @staticmethod
    def join(scores: Sequence["Scores"]) -> "Scores":
        """Returns the scores of several batches of one reward as one."""
        first = scores[0]
        parts = {name: torch.cat([one.parts[name] for one in scores]) for name in first.parts}
        fault = next((one.fault for one in scores if one.fault), None)
        return Scores(torch.cat([one.values for one in scores]), parts, first.higher_is_better, fault)


@dataclass(frozen=True)
class FrameSelection:
    r"""The frames of a video that a reward asks for, and how it scores them.

    Args:
        frames: Their numbers, :math:`k` of them; None is all.
        score: Takes pixels of these frames alone, with shape :math:`(B, k, 3, H, W)`, and :math:`B` prompts.
    """

    frames: Sequence[int] | None
    score: Callable[[Tensor, Sequence[str]], Scores]


class Reward(nn.Module, ABC):
    """A score of samples given their prompts: frozen, in eval mode, with its own resize and normalisation.

    A reward states facts about itself as class attributes; callers read them and never its name. A call leaves
    autocast, so that the score has at least the precision of float32 whatever the training runs in.
    """

    differentiable: bool = True
    """Whether the score has a gradient in the pixels."""
    higher_is_better: bool = True
    supports_images: bool = True
    r"""Whether it scores images, :math:`(B, 3, H, W)`."""
    supports_video: bool = False
    r"""Whether it scores videos, :math:`(B, F, 3, H, W)`."""
    scales: Mapping[str, float] = MappingProxyType({})
    """Factors from the score to the scales that published tables show, such as ``{"x100": 100.0}``."""

    @property
    def label(self) -> str:
        """What to call the score in tables and logs."""
        return type(self).__name__

    def format(self, score: Number) -> dict[str, Number]:
        """Returns a score, or a tensor of scores, by log name: under the label, and on each published scale."""
        scaled = {f"{self.label} {name}": factor * score for name, factor in self.scales.items()}
        return {self.label: score, **scaled}

    @abstractmethod
    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        r"""Returns one score a sample.

        Args:
            samples: Pixels in [0, 1], with shape :math:`(B, 3, H, W)`, or :math:`(B, F, 3, H, W)` for videos.
            prompts: The :math:`B` prompts.

        Returns:
            The scores, with shape :math:`(B)`.
        """

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Scores:
        r"""Returns the scores with their parts; the arguments are those of :meth:`forward`."""
        return Scores(self(samples, prompts), higher_is_better=self.higher_is_better)

    def select_frames(self, frames: int, seed: int) -> FrameSelection:
        r"""Returns which of the :math:`F` = ``frames`` frames of a video an update needs; all by default.

        Over seeds, the mean of the selection's score is the score of the whole video.
        """
        return FrameSelection(None, self.score)

    def check(self, video: bool) -> None:
        """Raises a ``ValueError`` that names the remedy unless it scores videos, or without ``video`` images."""
        if video and not self.supports_video:
            raise ValueError(f"{self.label} scores images, and the model makes videos; wrap the reward in FrameReward")
        if not (video or self.supports_images):
            raise ValueError(
                f"{type(self).__name__} scores videos, and the model makes images; use a reward of images, such as "
                "the one inside a FrameReward"
            )

    def update_statistics(self, scores: Scores, provisional: bool = False) -> None:
        """Updates running statistics, such as those of a scaling, from the scores of one update's rollouts.

        It is called once an update, after all scores of the update, on all ranks together, and in training alone. A
        score by itself never changes a statistic.

        Args:
            scores: This rank's scores.
            provisional: Whether the next call replaces, and does not extend, what this call learns.
        """

    def statistics(self) -> dict[str, Tensor]:
        """Returns the running statistics, for checkpoints; none by default."""
        return {}

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Restores what :meth:`statistics` returned."""

    def __call__(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores outside autocast, in float32 or float64."""
        with torch.autocast(samples.device.type, enabled=False):
            return super().__call__(samples.to(torch.promote_types(samples.dtype, torch.float32)), prompts)

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, whatever ``mode`` says: a score must not depend on dropout."""
        return super().train(False)
