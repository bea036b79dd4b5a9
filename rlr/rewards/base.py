"""The contract of a reward."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor, nn


class Reward(nn.Module, ABC):
    """A score of samples given their prompts: frozen, in eval mode, with its own resize and normalisation.

    A reward states facts about itself as class attributes; callers ask them and never its name. Calling it leaves
    autocast, so that the score has at least the precision of float32 whatever the training runs in.
    """

    differentiable: bool = True
    """Whether the score has a gradient in the pixels."""
    higher_is_better: bool = True
    scales: Mapping[str, float] = MappingProxyType({})
    """Factors from the score to the scales that published tables show, such as ``{"x100": 100.0}``."""

    @property
    def label(self) -> str:
        """What to call the score in tables and logs."""
        return type(self).__name__

    @abstractmethod
    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        r"""Returns one score a sample.

        Args:
            samples: Pixels in [0, 1], with shape :math:`(B, 3, H, W)`.
            prompts: The :math:`B` prompts.

        Returns:
            The scores, with shape :math:`(B)`.
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
