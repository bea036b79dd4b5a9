"""The exact check of the built-in world as a black-box reward."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlr.rewards.base import Reward
from rlr.toy.world.caption import parse
from rlr.toy.world.checker import check


class ExactCheck(Reward):
    r"""1 where the image shows all that its caption claims, else 0; nothing learned, so nothing to fool.

    Prompts must be captions of the built-in world (:mod:`rlr.toy.world`).

    Args:
        partial: Score the share of the caption's claims that are true instead, in [0, 1].
    """

    differentiable = False

    def __init__(self, partial: bool = False) -> None:
        super().__init__()
        self.partial = partial

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        claims = check(samples, [parse(prompt) for prompt in prompts])
        every = claims.pop("all")
        scores = torch.stack(list(claims.values())).nanmean(0) if self.partial else every
        return scores.to(samples)
