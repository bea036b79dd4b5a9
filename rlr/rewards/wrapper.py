"""Rewards made of another one."""

from collections.abc import Mapping

from torch import Tensor

from rlr.rewards.base import Reward, Scores


class Wrapper(Reward):
    """A reward that passes other samples to an inner reward, which owns the running statistics.

    Args:
        reward: The inner reward.
    """

    def __init__(self, reward: Reward) -> None:
        super().__init__()
        self.reward = reward
        self.differentiable, self.higher_is_better = reward.differentiable, reward.higher_is_better
        self.scales = reward.scales

    def update_statistics(self, scores: Scores, provisional: bool = False) -> None:
        self.reward.update_statistics(scores, provisional)

    def statistics(self) -> dict[str, Tensor]:
        return self.reward.statistics()

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        self.reward.load_statistics(statistics)
