r"""Advantages from the order of rewards alone."""

from collections.abc import Sequence

from torch import Tensor

from rlr.estimators.groups import Groups
from rlr.estimators.statistics import Statistics


class GroupRanks(Statistics):
    r"""The share of the other samples of the prompt that a sample beats, minus the share that beats it.

    .. math:: A_i = \frac{1}{n - 1} \sum_{j \neq i} \operatorname{sign}(R_i - R_j) \in [-1, 1]

    over the :math:`n` samples of its group. It is a rank: of :math:`n` different rewards the advantages are :math:`-1, \dots, 1` in
    equal steps, and equal rewards have equal ones. How much better a sample is does not matter, so that a reward that runs away
    in a few samples has no more weight than any other one. The gradient is that of the expected share of wins, and not of the
    expected reward.
    """

    def advantages(self, prompts: Sequence[Sequence[str]], rewards: Sequence[Tensor]) -> list[Tensor]:
        groups = Groups.of_round(prompts, rewards)
        groups.check("GroupRanks")
        same = groups.numbers[:, None] == groups.numbers
        signs = (groups.rewards[:, None] - groups.rewards).sign().where(same, 0.0)
        found = signs.sum(1) / (groups.counts[groups.numbers] - 1)
        return [own.to(r.dtype) for own, r in zip(groups.own(found), rewards, strict=True)]
