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
        """The steps, latest state first."""
        return tuple(range(self.start, self.stop, -1))


def partition(start: int, stop: int, length: int) -> list[Segment]:
    r"""Cuts steps ``start`` … ``stop + 1`` into segments of ``length``, the last one perhaps shorter."""
    return [Segment(s, max(s - length, stop)) for s in range(start, stop, -length)]


def check_stochastic(chain: Chain, stops: Iterable[int], owner: str) -> None:
    r"""Raises if a half-order segment could end in a deterministic step, :math:`\sigma = 0`.

    Args:
        chain: The chain.
        stops: The states :math:`x_j` in which segments may end.
        owner: Who asks, for the message.
    """
    for j in stops:
        if chain.std(j + 1) == 0:
            sampler = type(chain.sampler).__name__
            raise ValueError(
                f"{owner} needs noise in step {j + 1}, and the sampler {sampler} has none there (σ = 0); "
                f"set {sampler}'s eta (or noise level) above 0, or leave the last {j + 1} steps to first order"
            )
