r"""Batches larger than memory: at most :math:`m` samples pass the network, the decoder and the reward at once.

Samples do not depend on each other there, so neither values nor gradients change, whatever an estimator makes of the whole batch. A
pass of the network with a graph keeps its input and is made again in the backward pass, :math:`m` samples at a time; of a score,
the slope in its own latent is computed together with it (:mod:`rlr.rewards.slopes`). So the activations are those of :math:`m`
samples, and only latents, of states, noises and slopes, are kept of all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import itemgetter

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlr import lockstep
from rlr.models.base import Condition

Pass = Callable[[Tensor, Condition], Tensor]
r"""A pass of a network: from states, with shape :math:`(B, *)`, and their condition to as many predictions."""

_present: list[slice] = []


def rows(batch: int) -> slice:
    """Returns which rows of a batch of so many samples are in the present pass."""
    return _present[-1] if _present else slice(0, batch)


@contextmanager
def _of(part: slice) -> Iterator[None]:
    _present.append(part)
    try:
        yield
    finally:
        _present.pop()


def passed(function: Pass, x: Tensor, condition: Condition, most: int | None, recompute: bool = False) -> Tensor:
    r"""Returns what a pass of a network returns, made by :math:`m` samples at a time.

    Args:
        function: The pass.
        x: The states, with shape :math:`(B, *)`.
        condition: The condition of the samples.
        most: The number :math:`m`; None for all.
        recompute: Whether a graph keeps the states alone and is built again in the backward pass, also where all samples pass at
            once.
    """

    def of(start: int, x: Tensor, condition: Condition) -> Tensor:
        # within the pass, because it may be made again later
        with _of(slice(start, start + len(x))):
            return function(x, condition)

    spans = ranges(len(x), most)
    # where weights are split over processes, all make as many passes
    idle = lockstep.idle(len(spans)) if most else range(0)
    several = len(spans) + len(idle) > 1
    again = (several or recompute) and torch.is_grad_enabled()
    made = partial(checkpoint, of, use_reentrant=False) if again else of
    if not several:
        return made(0, x, condition)
    out = torch.cat([made(start, x[start:end], condition.map(itemgetter(slice(start, end)))) for start, end in spans])
    for _ in idle:
        out = out + 0 * made(0, x[:1], condition.map(itemgetter(slice(1)))).sum()
    return out


def ranges(count: int, most: int | None) -> list[tuple[int, int]]:
    """Returns where parts of ``most`` samples, by default all, begin and end."""
    size = most or max(count, 1)
    return [(start, min(start + size, count)) for start in range(0, count, size)]
