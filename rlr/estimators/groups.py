r"""The groups of a round: the samples of one prompt, on all ranks.

The samples of a group have different noises. Comparing a reward with those of its own group removes the difficulty of the
prompt from it. ``data.samples_per_prompt`` gives each prompt its :math:`n` samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from rlr.distributed import gather, gather_texts, rank, world_size


@dataclass(frozen=True)
class Groups:
    r"""The rewards of the :math:`N` samples of a round, in :math:`G` groups; the same on all ranks.

    Args:
        rewards: The rewards, with shape :math:`(N)`, in float64: batch after batch, in each rank after rank.
        numbers: The number :math:`0, \dots, G - 1` of each sample's group, with shape :math:`(N)`.
        sizes: The number :math:`B` of samples of each batch of one rank.
    """

    rewards: Tensor
    numbers: Tensor
    sizes: tuple[int, ...]

    @classmethod
    def of_round(cls, prompts: Sequence[Sequence[str]], rewards: Sequence[Tensor]) -> Self:
        r"""Returns the groups of a round. All ranks call it together.

        Args:
            prompts: The prompts of each batch of this rank.
            rewards: The rewards of each batch, with shape :math:`(B)`.
        """
        texts = [text for batch in prompts for part in gather_texts(batch) for text in part]
        known = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        everyone = torch.cat([gather(r).flatten() for r in rewards]).double()
        numbers = torch.tensor([known[text] for text in texts], device=everyone.device)
        return cls(everyone, numbers, tuple(len(r) for r in rewards))

    @cached_property
    def counts(self) -> Tensor:
        r"""The number :math:`n` of samples of each group, with shape :math:`(G)`."""
        return self.numbers.bincount()

    def check(self, name: str) -> None:
        """Raises a ``ValueError`` of what is called ``name`` unless each group has two samples."""
        if self.counts.min() < 2:
            raise ValueError(
                f"{name} compares the samples of a prompt, and {int((self.counts < 2).sum())} of the "
                f"{len(self.counts)} prompts of the round have one sample; set data.samples_per_prompt to 2 or more"
            )

    @cached_property
    def means(self) -> Tensor:
        r"""The mean reward of each group, with shape :math:`(G)`."""
        return self._sums(self.rewards) / self.counts

    @cached_property
    def stds(self) -> Tensor:
        r"""The standard deviation (with :math:`1 / n`) of each group, with shape :math:`(G)`."""
        return (self._sums(self.deviations.square()) / self.counts).sqrt()

    @cached_property
    def constant(self) -> Tensor:
        r"""Whether all rewards of a group are equal, with shape :math:`(G)`."""
        low, high = (
            self._empty().scatter_reduce(0, self.numbers, self.rewards, m, include_self=False) for m in ("amin", "amax")
        )
        return low == high

    @cached_property
    def deviations(self) -> Tensor:
        r"""The difference of each reward from the mean of its group, with shape :math:`(N)`."""
        return self.rewards - self.means[self.numbers]

    def own(self, values: Tensor) -> list[Tensor]:
        r"""Returns the part of this rank of values of all samples, by batch, each with shape :math:`(B)`."""
        batches = values.split([world_size() * size for size in self.sizes])
        return [batch.view(world_size(), -1)[rank()] for batch in batches]

    def _sums(self, values: Tensor) -> Tensor:
        return self._empty().index_add(0, self.numbers, values)

    def _empty(self) -> Tensor:
        return self.rewards.new_zeros(len(self.counts))


def group_metrics(groups: Groups) -> dict[str, float]:
    r"""Returns what is logged of groups: nothing unless each has at least two samples.

    ``group/std`` is the mean of their standard deviations. ``group/zero_std_ratio`` is the share of groups whose rewards are
    all equal: no estimator that compares within groups learns from them.
    """
    if groups.counts.min() < 2:
        return {}
    return {"group/std": groups.stds.mean().item(), "group/zero_std_ratio": groups.constant.double().mean().item()}
