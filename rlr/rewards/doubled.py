"""The published double de-normalisation, to reproduce its scores."""

from collections.abc import Sequence

from torch import Tensor

from rlr.rewards.base import Excerpt, Reward
from rlr.rewards.wrapper import Wrapper


class DoubledRange(Wrapper):
    r"""Another reward on pixels :math:`x / 2 + 1 / 2`: a picture in [0, 1] is taken for one in [-1, 1] and mapped once more.

    The released code of RLR and the later one of AlignProp train on it: the reward sees washed-out pictures in [0.5, 1].
    It serves comparison with them and nothing else.

    Args:
        reward: The reward.
    """

    def __init__(self, reward: Reward) -> None:
        super().__init__(reward)
        self.differentiable = reward.differentiable
        self.higher_is_better = reward.higher_is_better
        self.reads_pictures, self.reads_clips = reward.reads_pictures, reward.reads_clips
        self.scales = reward.scales

    @property
    def label(self) -> str:
        return f"{self.reward.label}_doubled"

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.reward(samples / 2 + 0.5, prompts)

    def excerpt(self, frames: int, seed: int) -> Excerpt:
        inner = self.reward.excerpt(frames, seed)
        return Excerpt(inner.frames, lambda samples, prompts: inner.score(samples / 2 + 0.5, prompts))
