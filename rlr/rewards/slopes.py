r"""The scores of a batch, a few samples at a time, with the slope of each in its own latent.

The score of a sample depends on itself alone, so its gradient is its slope times that of its latent. A slope has the size of a
latent; the graph through the decoder and the reward, which gave it, is freed before the next samples are scored.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rlr.microbatch import ranges
from rlr.rewards.base import Scores
from rlr.scoring import AtOnce, Pending

Begin = Callable[[Tensor, Sequence[str]], Pending[Scores]]
"""Begins to score latents of prompts, and returns what waits for the scores."""


def scored(begin: Begin, x: Tensor, prompts: Sequence[str], most: int | None) -> Pending[Scores]:
    r"""Begins to score latents, :math:`m` at a time, and returns what waits for the scores.

    Args:
        begin: Begins to score some latents.
        x: The latents, with shape :math:`(B, *)`.
        prompts: The :math:`B` prompts.
        most: The number :math:`m`; None for all.
    """
    if most is None or len(x) <= most:
        return begin(x, prompts)
    parts = [(x[start:end], prompts[start:end]) for start, end in ranges(len(x), most)]
    if torch.is_grad_enabled() and x.requires_grad:
        return AtOnce().begin(lambda: _with_slopes(begin, x, parts))
    pending = [begin(*part) for part in parts]
    return lambda: Scores.join([one() for one in pending])


def _with_slopes(begin: Begin, x: Tensor, parts: Sequence[tuple[Tensor, Sequence[str]]]) -> Scores:
    r"""Returns scores :math:`R_i + \langle s_i, x_i - \lfloor x_i \rfloor \rangle`.

    Their gradient is that of :math:`s_i = \partial R_i / \partial x_i`; :math:`\lfloor x_i \rfloor` is the latent as a constant.
    """
    scores, slopes = zip(*(_differentiated(begin, *part) for part in parts), strict=True)
    joined = Scores.join(scores)
    if any(slope is None for slope in slopes):
        return joined
    return replace(joined, values=joined.values + (torch.cat(slopes) * (x - x.detach())).flatten(1).sum(1))


def _differentiated(begin: Begin, x: Tensor, prompts: Sequence[str]) -> tuple[Scores, Tensor | None]:
    """Returns the scores of some latents and the slope of each in its own latent; None where the scores have no graph."""
    leaf = x.detach().requires_grad_()
    scores = begin(leaf, prompts)()
    if not scores.values.requires_grad:
        return scores, None
    (slope,) = torch.autograd.grad(scores.values.sum(), leaf)
    return scores.detach(), slope
