"""The contract of a reward."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from traceback import extract_tb
from types import MappingProxyType
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rlr.rewards.isolation import finite_rows, isolate

Number = TypeVar("Number", float, Tensor)

MISTAKES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a mistake in the code of a reward raises; errors of files and of the network state their own remedies."""


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
    """A score of samples given their prompts: frozen, in eval mode, with its own resize and normalization.

    A reward states facts about itself as class attributes; callers read them and never its name. It computes in at least
    float32, forward and backward, whatever the training runs in: outside autocast, with weights that casts to float16
    or bfloat16 leave as they are.
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
        r"""Returns one score a sample, in at least float32 forward and backward; NaN for a sample that is not finite.

        Samples with NaN or infinity are hidden from :meth:`forward`, which gets mid-gray in their place, and have no
        gradient. A reward of other rewards gets them as they are, so that the others return NaN, too.

        Raises:
            ValueError: If :meth:`forward` raises an error, or does not return one score a sample.
        """
        return self.isolated(super().__call__, samples, prompts)

    def isolated(
        self,
        function: Callable[[Tensor, Sequence[str]], Tensor],
        samples: Tensor,
        prompts: Sequence[str],
        size: tuple[int, ...] = (),
    ) -> Tensor:
        r"""Returns what ``function`` returns for samples and prompts, under the conditions of a call of the reward.

        Args:
            function: Returns numbers of each sample, with shape :math:`(B, *)`.
            samples: The samples.
            prompts: The :math:`B` prompts.
            size: The shape of the numbers of a sample; one number by default.

        Returns:
            The numbers, NaN for a sample that is not finite, with shape :math:`(B, *)`.
        """
        samples = samples.to(torch.promote_types(samples.dtype, torch.float32))
        finite = finite_rows(samples)
        return isolate(lambda pixels: self._score_rows(function, pixels, prompts, finite, size), samples)

    def _score_rows(
        self,
        function: Callable[[Tensor, Sequence[str]], Tensor],
        samples: Tensor,
        prompts: Sequence[str],
        finite: Tensor,
        size: tuple[int, ...],
    ) -> Tensor:
        if not any(isinstance(part, Reward) for part in self.modules() if part is not self):
            samples = samples.where(finite.view(-1, *[1] * (samples.ndim - 1)), 0.5)
        try:
            found = function(samples, prompts)
        except MISTAKES as error:
            # inside a combination the part has stated its name
            named = self.label in str(error) or str(error).startswith("the reward ")
            if named or isinstance(error, FloatingPointError | torch.OutOfMemoryError):
                raise
            raise ValueError(f"the reward {self.label}: {_fact(error)}") from error
        scores = as_scores(found, prompts, type(self).__name__, size).to(samples.device)
        return scores.where(finite.view(-1, *[1] * len(size)), torch.nan)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follows moves between devices, and ignores casts below float32, such as those of ``bf16-true``."""
        return super()._apply(lambda tensor: without_rounding(fn, tensor), recurse)

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, whatever ``mode`` says: a score must not depend on dropout."""
        return super().train(False)


def _fact(error: Exception) -> str:
    """Returns what an error of a reward says; of one that is no sentence, its type and line."""
    if isinstance(error, ValueError):
        return str(error)
    place = extract_tb(error.__traceback__)[-1]
    return (
        f"expected scores, got {type(error).__name__}: {error} ({place.filename}, line {place.lineno}); correct the reward, or "
        "set RLR_TRACEBACK=1 to see the whole traceback"
    )


def as_scores(value: Any, prompts: Sequence[str], name: str, size: tuple[int, ...] = ()) -> Tensor:
    r"""Returns what a reward returned as scores in at least float32, with shape :math:`(B)`, or :math:`(B, *)` with ``size``.

    Args:
        value: A tensor, a NumPy array, or a sequence of numbers or of tensors with one element, whose gradient is kept.
        prompts: The :math:`B` prompts.
        name: What messages call the reward.
        size: The shape of the scores of a sample.

    Raises:
        ValueError: If it is anything else.
    """
    scores = _as_tensor(value)
    if scores is None or scores.is_complex() or scores.shape != (len(prompts), *size):
        raise ValueError(
            f"the reward {name}: expected one number a sample, a tensor of shape ({len(prompts)},), got "
            f"{_describe(value)}; return one score for each of the {len(prompts)} prompts"
        )
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _as_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        # a sparse tensor has none of the operations that follow
        return value if value.layout == torch.strided else None
    try:
        if isinstance(value, list | tuple) and value and all(isinstance(score, Tensor) for score in value):
            return torch.stack([score.reshape(()) for score in value])
        numbers = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return torch.from_numpy(numbers.astype(np.float32)) if numbers.dtype.kind in "biuf" else None


def _describe(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, Tensor) and value.layout != torch.strided:
        return f"a sparse tensor ({value.layout})"
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} of shape {tuple(value.shape)} and type {value.dtype}"
    text = repr(value)
    return f"{type(value).__name__} {text[:80]}{'…' if len(text) > 80 else ''}"


def without_rounding(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """Returns ``fn(tensor)``, or the tensor where ``fn`` moves it if ``fn`` casts it below float32."""
    moved = fn(tensor)
    lost = moved.is_floating_point() and tensor.dtype != moved.dtype and torch.finfo(moved.dtype).bits < 32
    return tensor.to(moved.device) if lost else moved
