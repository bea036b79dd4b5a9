r"""Samples of prompts on fixed noises.

Sample :math:`k` of prompt :math:`i` has the noise of ``spawn(seed, Stream.EVALUATION, i, k)``. So it is the same picture
whatever batch it
is made in, by however many processes, and however many samples or prompts come after it; two models that are given one
seed see the same noise, and differences between them are paired.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.seeding import Stream, spawn


class Painted(NamedTuple):
    r"""Some of the samples.

    Args:
        rows: Their numbers, :math:`i S + k` for sample :math:`k` of prompt :math:`i`.
        prompts: The prompt of each.
        pixels: The samples in [0, 1], with shape :math:`(B, *)`.
    """

    rows: list[int]
    prompts: list[str]
    pixels: Tensor


def paint(
    chain: Chain,
    prompts: Sequence[str],
    samples: int = 1,
    seed: int = 0,
    batch: int = 8,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Painted]:
    r"""Yields :math:`S` samples of every prompt; rank :math:`r` of :math:`W` has those of the prompts :math:`r + jW`.

    Args:
        chain: The model with its sampler.
        prompts: The :math:`N` prompts.
        samples: The number :math:`S` of samples of each.
        seed: Decides all noises.
        batch: How many samples are made at once.
        rank: The rank :math:`r`.
        world: The number :math:`W` of ranks.
    """
    rows = [i * samples + k for i in range(rank, len(prompts), world) for k in range(samples)]
    for at in range(0, len(rows), batch):
        piece = rows[at : at + batch]
        lines = [prompts[row // samples] for row in piece]
        yield Painted(
            piece, lines, render(chain, lines, [spawn(seed, Stream.EVALUATION, *divmod(row, samples)) for row in piece])
        )


@torch.no_grad()
def render(chain: Chain, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    r"""Returns one sample a prompt as pixels in [0, 1], with shape :math:`(B, *)`, each from the noise of its seed."""
    return chain.model.decode(chain.sample(chain.encode(prompts), chain.draw(seeds)).states[0])
