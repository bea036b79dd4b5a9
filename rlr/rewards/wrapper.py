"""Rewards made of another one."""

from collections.abc import Mapping

from torch import Tensor

from rlr.rewards.base import Reward


class Wrapper(Reward):
    """A reward that shows another one other samples; what there is to learn from scores, the other learns.

    Args:
        reward: The other.
    """

    def __init__(self, reward: Reward) -> None:
        super().__init__()
        self.reward = reward

    @property
    def parts(self) -> dict[str, Tensor]:
        return self.reward.parts

    def observe(self, parts: Mapping[str, Tensor]) -> None:
        self.reward.observe(parts)

    def settle(self, provisional: bool = False) -> None:
        self.reward.settle(provisional)

    def memory(self) -> dict[str, Tensor]:
        return self.reward.memory()

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        self.reward.recall(memory)
