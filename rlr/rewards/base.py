"""The contract of a reward."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

Score = TypeVar("Score", float, Tensor)


@dataclass(frozen=True)
class Excerpt:
    r"""The frames of a clip that a reward asks for, and how it scores them.

    Args:
        frames: Their numbers, :math:`k` of them; None is all.
        score: Takes pixels of these frames alone, with shape :math:`(B, k, 3, H, W)`, and :math:`B` prompts, and
            returns the scores, with shape :math:`(B)`.
    """

    frames: Sequence[int] | None
    score: Callable[[Tensor, Sequence[str]], Tensor]


class Reward(nn.Module, ABC):
    """A score of samples given their prompts: frozen, in eval mode, with its own resize and normalisation.

    A reward states facts about itself as class attributes; callers ask them and never its name. Calling it leaves
    autocast, so that the score has at least the precision of float32 whatever the training runs in.
    """

    differentiable: bool = True
    """Whether the score has a gradient in the pixels."""
    higher_is_better: bool = True
    reads_pictures: bool = True
    r"""Whether it scores pictures, :math:`(B, 3, H, W)`."""
    reads_clips: bool = False
    r"""Whether it scores clips, :math:`(B, F, 3, H, W)`."""
    scales: Mapping[str, float] = MappingProxyType({})
    """Factors from the score to the scales that published tables show, such as ``{"x100": 100.0}``."""

    @property
    def label(self) -> str:
        """What to call the score in tables and logs."""
        return type(self).__name__

    def rows(self, score: Score) -> dict[str, Score]:
        """Returns a score, or a tensor of scores, as tables name it: under the label, and on each published scale."""
        scaled = {f"{self.label} {name}": factor * score for name, factor in self.scales.items()}
        return {self.label: score, **scaled}

    @abstractmethod
    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        r"""Returns one score a sample.

        Args:
            samples: Pixels in [0, 1], with shape :math:`(B, 3, H, W)`, or :math:`(B, F, 3, H, W)` for clips.
            prompts: The :math:`B` prompts.

        Returns:
            The scores, with shape :math:`(B)`.
        """

    def excerpt(self, frames: int, seed: int) -> Excerpt:
        r"""Returns which of the :math:`F` = ``frames`` frames of a clip an update needs; all by default.

        Over seeds, the mean of the excerpt's score is the score of the whole clip.
        """
        return Excerpt(None, self)

    def check(self, clips: bool) -> None:
        """Raises a ``ValueError`` that names the remedy unless it scores clips, or without ``clips`` pictures."""
        if clips and not self.reads_clips:
            raise ValueError(f"{self.label} reads pictures, and the model makes clips; wrap it in FrameReward")
        if not (clips or self.reads_pictures):
            raise ValueError(
                f"{type(self).__name__} reads clips, and the model makes pictures; use a reward of pictures, such as "
                "the one inside a FrameReward"
            )

    @property
    def parts(self) -> dict[str, Tensor]:
        """The scores that the last call was made of, by name and without a gradient, for logs; none by default."""
        return {}

    def observe(self, parts: Mapping[str, Tensor]) -> None:
        """Is told the :attr:`parts` of the samples of one roll-out; the same number of times on all ranks.

        This and :meth:`settle` are called in training alone; scoring by itself teaches a reward nothing.
        """

    def settle(self, provisional: bool = False) -> None:
        """Learns from what has been observed since it was last called: once an update, after all of its scores.

        Args:
            provisional: Whether what is learnt is to be replaced, and not extended, by what is learnt next.
        """

    def memory(self) -> dict[str, Tensor]:
        """Returns what it has learnt from the scores of the run, for checkpoints; nothing by default."""
        return {}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Restores what :meth:`memory` returned."""

    def __call__(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores outside autocast, in float32 or float64."""
        with torch.autocast(samples.device.type, enabled=False):
            return super().__call__(samples.to(torch.promote_types(samples.dtype, torch.float32)), prompts)

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, whatever ``mode`` says: a score must not depend on dropout."""
        return super().train(False)
