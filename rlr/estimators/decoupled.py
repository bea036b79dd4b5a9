r"""Advantages of several rewards, each compared within the groups before they are added."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from rlr.estimators.groups import Groups
from rlr.estimators.statistics import GroupStatistics, GroupStd, RoundStatistics, Statistics
from rlr.rollout import Rollout


class DecoupledGroups(Statistics):
    r"""Each part of a combined reward divided by its own standard deviation in the group (GDPO).

    With the rewards :math:`R^k` of a :class:`~rlr.rewards.combine.Combine` and weights :math:`w_k`,

    .. math:: A_i^k = \frac{R_i^k - m_i^k}{s_i^k + \epsilon}, \qquad S_i = \sum_k w_k A_i^k, \qquad
        A_i = \frac{S_i - \bar S}{\operatorname{std}(S) + \epsilon}

    with mean and standard deviation (with :math:`1 / n`) of the group in :math:`m_i^k, s_i^k`, and of the round in
    :math:`\bar S`. No part decides alone because of its units or of its spread, and combinations of parts with equal sums
    have different advantages. The weights and the scaling of the ``Combine`` have no effect on these advantages, only on
    what is logged as the reward.

    References:
        | GDPO: Group reward-Decoupled Normalization Policy Optimization for Multi-reward RL Optimization (2026)
        | https://arxiv.org/abs/2601.05242

    Args:
        weights: The weight of each part by its name, negative where lower is better.
        epsilon: The constant :math:`\epsilon`.

    Raises:
        ValueError: If there are no weights.
    """

    def __init__(self, weights: Mapping[str, float], epsilon: float = 1e-4) -> None:
        if not weights or not any(weights.values()):
            raise ValueError(f"DecoupledGroups.weights: expected a weight other than 0, got {dict(weights)}")
        self.weights = dict(weights)
        self.groups = GroupStatistics(GroupStd(epsilon), leave_one_out=False)
        self.round = RoundStatistics(epsilon)

    def advantages(self, prompts: Sequence[Sequence[str]], rewards: Sequence[Tensor]) -> list[Tensor]:
        raise ValueError(
            "DecoupledGroups compares the parts of a combined reward, and this estimator passes their sum alone; use GRPO, "
            "DDPO, AWM or DiffusionNFT"
        )

    def of_rollouts(self, rollouts: Sequence[Rollout]) -> list[Tensor]:
        prompts = [rollout.prompts for rollout in rollouts]
        Groups.of_round(prompts, [rollout.rewards for rollout in rollouts]).check("DecoupledGroups")
        sums = [0 * rollout.rewards.double() for rollout in rollouts]
        for name, weight in self.weights.items():
            parts = [part_of(rollout, name).double() for rollout in rollouts]
            own = self.groups.advantages(prompts, parts)
            sums = [total + weight * a for total, a in zip(sums, own, strict=True)]
        found = self.round.advantages(prompts, sums)
        return [a.to(rollout.rewards.dtype) for a, rollout in zip(found, rollouts, strict=True)]


def part_of(rollout: Rollout, name: str) -> Tensor:
    r"""Returns the scores of a part of the reward, with shape :math:`(B)`; of frames of a video, their mean.

    Raises:
        ValueError: If the reward has no such part.
    """
    parts = rollout.scores.parts
    if name not in parts:
        known = [part for part in parts if "/" not in part]
        raise ValueError(
            f"expected a reward with the part {name!r}, got the parts {known}; use Combine, and name its parts in the weights"
        )
    return parts[name].flatten(1).mean(1) if parts[name].ndim > 1 else parts[name]
