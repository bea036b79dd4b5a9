r"""Sub-chains: which steps one half-order term covers."""

from collections.abc import Iterable
from typing import NamedTuple

from rlr.chain import Chain


class Segment(NamedTuple):
    r"""The sub-chain :math:`x_\mathrm{start} \to x_\mathrm{stop}`: steps ``start`` … ``stop + 1``."""

    start: int
    stop: int

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps in the order of the chain."""
        return tuple(range(self.start, self.stop, -1))


StepRange = tuple[int, int]
"""The first and the last of some steps of a chain, both included; the first has the larger number."""


def partition(start: int, stop: int, length: int) -> list[Segment]:
    r"""Splits steps ``start`` … ``stop + 1`` into segments of ``length``; the last one may be shorter."""
    return [Segment(s, max(s - length, stop)) for s in range(start, stop, -length)]


def covered(chain: Chain, skip_last: int, step_range: StepRange | None) -> Segment:
    r"""Returns the part of the chain from which sub-chains are taken: all but the last ``skip_last`` steps, or ``step_range``."""
    return Segment(chain.steps, skip_last) if step_range is None else Segment(step_range[0], step_range[1] - 1)


def noisy_runs(chain: Chain, part: Segment) -> list[Segment]:
    """Returns the runs of consecutive steps with noise within a part of the chain, in the order of the chain."""
    runs: list[Segment] = []
    for t in sorted(set(chain.noisy_steps) & set(part.steps), reverse=True):
        if runs and runs[-1].stop == t:
            runs[-1] = Segment(runs[-1].start, t - 1)
        else:
            runs.append(Segment(t, t - 1))
    return runs


def check_range(chain: Chain, skip_last: int, step_range: StepRange | None, length: int, owner: str) -> None:
    r"""Raises if a range contains a step that cannot be covered, or is shorter than a sub-chain.

    Args:
        chain: The chain.
        skip_last: The number of last steps of the chain that other terms cover.
        step_range: The range.
        length: The length :math:`h` of a sub-chain.
        owner: The name of the estimator, for the message.
    """
    if step_range is None:
        return
    first, last = step_range
    if not chain.steps >= first >= last > skip_last:
        raise ValueError(
            f"{owner}.step_range: expected the first and the last of steps {chain.steps} … {skip_last + 1}, got "
            f"{list(step_range)}; set the larger number first"
        )
    if length > first - last + 1:
        raise ValueError(
            f"{owner}: a sub-chain of length={length} does not fit into step_range={list(step_range)} of "
            f"{first - last + 1} steps; set length lower, or a wider step_range"
        )


def check_stochastic(chain: Chain, stops: Iterable[int], owner: str) -> None:
    r"""Raises if one of some steps is deterministic, :math:`\sigma = 0`.

    Args:
        chain: The chain.
        stops: The states :math:`x_j` in which the steps end.
        owner: The name of the estimator, for the message.
    """
    for j in stops:
        if chain.std(j + 1) == 0:
            sampler = type(chain.sampler).__name__
            raise ValueError(
                f"{owner} needs noise in step {j + 1}, and the sampler {sampler} has no noise there (σ = 0); "
                f"set {sampler}'s eta, noise level or window so that it has, or leave the last {j + 1} steps to first order, which "
                f"HalfOrderRLR(steps={j + 1}) covers and HalfOrder(skip_last={j + 1}) leaves out"
            )
