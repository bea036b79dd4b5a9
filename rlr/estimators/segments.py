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


Span = tuple[int, int]
"""Steps of a chain, first and last, both included: the first has the larger number."""


def partition(start: int, stop: int, length: int) -> list[Segment]:
    r"""Cuts steps ``start`` … ``stop + 1`` into segments of ``length``, the last one perhaps shorter."""
    return [Segment(s, max(s - length, stop)) for s in range(start, stop, -length)]


def reach(chain: Chain, spare: int, span: Span | None) -> Segment:
    r"""Returns the part of the chain from which sub-chains are taken: all but the last ``spare`` steps, or ``span``."""
    return Segment(chain.steps, spare) if span is None else Segment(span[0], span[1] - 1)


def check_span(chain: Chain, spare: int, span: Span | None, length: int, owner: str) -> None:
    r"""Raises if a span is not among the steps that are there to be covered, or is shorter than a sub-chain.

    Args:
        chain: The chain.
        spare: The last steps of the chain, which others cover.
        span: The span.
        length: The length :math:`h` of a sub-chain.
        owner: Who asks, for the message.
    """
    if span is None:
        return
    first, last = span
    if not chain.steps >= first >= last > spare:
        raise ValueError(
            f"{owner} takes sub-chains from steps {chain.steps} … {spare + 1} of this chain, and span={list(span)} is no "
            "part of them; give its first and its last step, the larger number first"
        )
    if length > first - last + 1:
        raise ValueError(
            f"a sub-chain of length={length} does not fit into {owner}'s span={list(span)} of {first - last + 1} steps; "
            "set length lower, or widen the span"
        )


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
