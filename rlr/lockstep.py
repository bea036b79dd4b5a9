r"""Passes of a network that all processes make together, because its weights are split over them.

A pass gathers weights, and so waits for the same pass of all other processes. Where a process has no sample for a pass that others
make, it makes an *idle* one: of one sample, whose result is dropped or counts 0. Processes agree beforehand on which passes there
are. Gathered are weights, whose sizes do not depend on the samples, so that an idle pass serves a batch of any size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlr.distributed import gather_objects

enabled = False
"""Whether processes make their passes together; set by the strategy that splits the weights."""


@dataclass(frozen=True)
class Part:
    r"""Some samples that pass the network together.

    Args:
        number: Its number among the parts of all processes.
        rows: The rows of the samples, with shape :math:`(n)`, :math:`n \geq 1`.
        weight: 1, or 0 for an idle part: that of the first sample, which this process would not have made.
    """

    number: int
    rows: Tensor
    weight: float = 1.0


def parts(rows: Sequence[Tensor]) -> list[Part]:
    """Returns those of some parts that hold a sample; together, those that hold one on any process, idle where it is elsewhere.

    Together, all processes call it at the same time.

    Args:
        rows: The rows of each part on this process, which may be none. Processes may have different numbers of parts.
    """
    own = {number: Part(number, some) for number, some in enumerate(rows) if len(some)}
    if not enabled:
        return list(own.values())
    first = torch.zeros(1, dtype=torch.long)
    numbers = sorted({number for held in gather_objects(list(own)) for number in held})
    return [own.get(number, Part(number, first, 0.0)) for number in numbers]


def idle(count: int) -> range:
    """Returns a range of as many idle passes as this process has to add to its ``count``, to make as many as any process.

    Together, all processes call it at the same time; otherwise it is empty.
    """
    return range(max(gather_objects(count)) - count if enabled else 0)
