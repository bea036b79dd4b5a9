"""The contract of a reward."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rlr.rewards.isolation import finite_rows, isolate

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

    A reward states facts about itself as class attributes; callers ask them and never its name. It computes in at least
    float32, forward and backward, whatever the training runs in: outside autocast, with weights that casts to float16
    or bfloat16 leave as they are.
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
        r"""Returns one score a sample, in at least float32 forward and backward; NaN for a sample that is not finite.

        Samples with NaN or infinity are hidden from :meth:`forward`, which gets mid-gray in their place, and have no
        gradient. A reward of other rewards gets them as they are, so that the others return NaN, too.

        Raises:
            ValueError: If :meth:`forward` does not return one score a sample.
        """
        samples = samples.to(torch.promote_types(samples.dtype, torch.float32))
        finite = finite_rows(samples)
        return isolate(lambda pixels: self._score_rows(pixels, prompts, finite), samples)

    def _score_rows(self, samples: Tensor, prompts: Sequence[str], finite: Tensor) -> Tensor:
        if not any(isinstance(part, Reward) for part in self.modules() if part is not self):
            samples = samples.where(finite.view(-1, *[1] * (samples.ndim - 1)), 0.5)
        scores = as_scores(super().__call__(samples, prompts), prompts, type(self).__name__).to(samples.device)
        return scores.where(finite, torch.nan)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follows moves between devices, and ignores casts below float32, such as those of ``bf16-true``."""
        return super()._apply(lambda tensor: _without_rounding(fn, tensor), recurse)

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, whatever ``mode`` says: a score must not depend on dropout."""
        return super().train(False)


def as_scores(value: Any, prompts: Sequence[str], name: str) -> Tensor:
    r"""Returns what a reward returned as scores in at least float32, with shape :math:`(B)`.

    Args:
        value: A tensor, a NumPy array, or a sequence of numbers or of tensors with one element, whose gradient is kept.
        prompts: The :math:`B` prompts.
        name: What messages call the reward.

    Raises:
        ValueError: If it is anything else.
    """
    scores = _as_tensor(value)
    if scores is None or scores.is_complex() or scores.shape != (len(prompts),):
        raise ValueError(
            f"the reward {name}: expected one number a sample, a tensor of shape ({len(prompts)},), got "
            f"{_describe(value)}; return one score for each of the {len(prompts)} prompts"
        )
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _as_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    try:
        if isinstance(value, list | tuple) and value and all(isinstance(score, Tensor) for score in value):
            return torch.stack([score.reshape(()) for score in value])
        numbers = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return torch.from_numpy(numbers.astype(np.float32)) if numbers.dtype.kind in "biuf" else None


def _describe(value: Any) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} of shape {tuple(value.shape)} and type {value.dtype}"
    text = repr(value)
    return f"{type(value).__name__} {text[:80]}{'…' if len(text) > 80 else ''}"


def _without_rounding(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    moved = fn(tensor)
    lost = moved.is_floating_point() and tensor.dtype != moved.dtype and torch.finfo(moved.dtype).bits < 32
    return tensor.to(moved.device) if lost else moved
