"""The mean brightness of an image, the simplest reward."""

from collections.abc import Sequence

from torch import Tensor

from rlr.rewards.base import Reward


class Brightness(Reward):
    r"""The mean of all pixels and channels, in [0, 1]: differentiable and independent of the prompt."""

    supports_video = True

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples.flatten(1).mean(1)
