"""The contract of a reward."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class Reward(nn.Module, ABC):
    """A score of samples given their prompts: frozen, in eval mode, with its own resize and normalisation.

    A reward states facts about itself as class attributes; callers ask them and never its name.
    """

    differentiable: bool = True
    """Whether the score has a gradient in the pixels."""
    higher_is_better: bool = True

    @abstractmethod
    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        r"""Returns one score a sample.

        Args:
            samples: Pixels in [0, 1], with shape :math:`(B, 3, H, W)`.
            prompts: The :math:`B` prompts.

        Returns:
            The scores, with shape :math:`(B)`.
        """
