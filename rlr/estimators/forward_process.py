r"""The forward process: final samples noised again, :math:`x_t = \alpha_t x_0 + \sigma_t \varepsilon`.

A loss on noised samples needs no recorded path: any sampler serves, a deterministic one too. The levels are those of the
chain's grid, so the network is trained where the sampler evaluates it, with the prompt of that step where prompts are staged.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators.segments import StepRange, check_range, covered
from rlr.lockstep import Part, parts
from rlr.models.base import Condition
from rlr.rollout import Rollout
from rlr.seeding import Stream


@dataclass(frozen=True)
class Noised:
    r"""Some samples of a rollout at the level of one step.

    Args:
        chain: The chain.
        step: The step :math:`t` whose levels :math:`\alpha_t, \sigma_t` the samples have.
        rows: The numbers of the samples in the rollout, with shape :math:`(n)`.
        clean: The final samples :math:`x_0`, with shape :math:`(n, *)`.
        states: The :math:`x_t`, with shape :math:`(n, *)`.
        condition: The condition of the samples in this step.
        weight: The factor on their losses, 1 or 0; see :class:`~rlr.lockstep.Part`.
    """

    chain: Chain
    step: int
    rows: Tensor
    clean: Tensor
    states: Tensor
    condition: Condition
    weight: float = 1.0

    @property
    def levels(self) -> tuple[float, float]:
        r"""The levels :math:`\alpha_t, \sigma_t`."""
        return self.chain.grid.alphas[self.step], self.chain.grid.sigmas[self.step]

    def denoise(self) -> Tensor:
        r"""Returns :math:`\hat x_0(x_t)` of the current weights, with shape :math:`(n, *)` and a graph."""
        return self.chain.denoise(self.states, self.step, self.condition)


class ForwardProcess:
    r"""Noises final samples to levels that are drawn for each sample.

    Sample :math:`i` takes :math:`K` of the :math:`N` steps, evenly spaced from an offset :math:`u_i`:

    .. math:: \bigl\lfloor (u_i + k) \, N / K \bigr\rfloor, \quad k = 0, \dots, K - 1, \qquad u_i = (\pi_i + v_i) / B,

    with a random order :math:`\pi` of the :math:`B` samples of an update, on all ranks, and :math:`v_i` uniform in [0, 1). So every
    level is equally likely, the levels of one sample differ, and those of an update are spread evenly.

    Args:
        levels: The number :math:`K` of levels of each sample; by default all :math:`N`.
        step_range: The first and the last of the steps whose levels are used; by default all steps of the chain. ``[9, 1]`` of
            10 steps leaves out pure noise on a rectified flow.

    Raises:
        ValueError: If ``levels`` is less than 1.
    """

    def __init__(self, levels: int | None = None, step_range: StepRange | None = None) -> None:
        if levels is not None and levels < 1:
            raise ValueError(f"ForwardProcess.levels: expected at least 1 level, got {levels}")
        self.levels = levels
        self.step_range = step_range

    def check(self, chain: Chain) -> None:
        """Raises a ``ValueError`` if the steps are not those of the chain, or fewer than the levels."""
        check_range(chain, 0, self.step_range, 1, "ForwardProcess")
        available = len(covered(chain, 0, self.step_range).steps)
        if self.levels is not None and self.levels > available:
            raise ValueError(
                f"ForwardProcess.levels: expected at most the {available} steps that it draws from, got {self.levels}; set "
                "levels lower, or a wider step_range"
            )

    def count(self, chain: Chain) -> int:
        r"""Returns the number :math:`K` of levels of each sample."""
        return self.levels or len(covered(chain, 0, self.step_range).steps)

    def noised(self, rollout: Rollout) -> Iterator[Noised]:
        r"""Yields the noised samples, one level at a time from the noisiest on; the noises follow from the rollout's seed."""
        share, steps = rollout.share, covered(rollout.chain, 0, self.step_range).steps
        drawn = self.draw(rollout.chain, share.total, rollout.generator(Stream.LEVEL))[share.numbers]
        for part in parts([drawn[:, column].nonzero().flatten() for column in range(len(steps))]):
            yield _noise(rollout, steps[part.number], part)

    def draw(self, chain: Chain, batch: int, generator: torch.Generator) -> Tensor:
        r"""Returns which levels each of :math:`B` samples takes, with shape :math:`(B, N)`, the noisiest level first."""
        n, k = len(covered(chain, 0, self.step_range).steps), self.count(chain)
        order = torch.randperm(batch, generator=generator)
        offsets = (order + torch.rand(batch, generator=generator, dtype=torch.float64)) / batch
        chosen = ((offsets[:, None] + torch.arange(k)) * n / k).long().clamp(max=n - 1)
        return torch.zeros(batch, n, dtype=torch.bool).scatter_(1, chosen, True)


def _noise(rollout: Rollout, t: int, part: Part) -> Noised:
    r"""Returns samples at the level of step :math:`t`."""
    chain, trajectory, rows = rollout.chain, rollout.trajectory, part.rows
    clean = trajectory.states[0][rows.to(trajectory.states.device)]
    states = chain.grid.alphas[t] * clean + chain.grid.sigmas[t] * rollout.normal(Stream.RENOISE, t, rows=rows)
    condition = trajectory.condition.at(t).map(lambda c: c[rows.to(c.device)])
    return Noised(chain, t, rows, clean, states, condition, part.weight)
