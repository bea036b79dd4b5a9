r"""Which segments an update covers, when it covers :math:`m` of :math:`n`.

Draw :math:`m` different segments, each with the probability :math:`m \, p_i` of being among them, and multiply their terms by

.. math:: \frac{1}{m \, p_i}.

The estimate is unbiased for all :math:`p_i > 0` that do not depend on the noise of the rollout. Its variance is smallest for
:math:`p_i \propto \sqrt{E|\hat g_i|^2}`, with :math:`\hat g_i` the estimate of the segment.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from rlr.distributed import gathered, is_split, mean
from rlr.estimators.base import Term
from rlr.estimators.segments import Segment


class Drawing(ABC):
    r"""A choice of :math:`m` of :math:`n` segments."""

    @abstractmethod
    def draw(self, segments: Sequence[Segment], count: int, generator: torch.Generator) -> dict[Segment, float]:
        r"""Returns the drawn segments, and the factor on the term of each.

        Args:
            segments: The :math:`n` segments.
            count: The number :math:`m < n` of segments to draw.
            generator: The generator; the same on all ranks.
        """

    def measure(
        self, terms: Iterator[Term], drawn: Mapping[Segment, float], weights: Collection[Tensor]
    ) -> Iterator[Term]:
        r"""Yields the terms of drawn segments as they are; a drawing may measure their gradients between two of them.

        Args:
            terms: The terms, multiplied by their factors.
            drawn: What :meth:`draw` returned.
            weights: The trained weights.
        """
        return terms

    def state_dict(self) -> dict[str, object]:
        """Returns the state that is kept from one update to the next."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:  # noqa: B027 - a hook
        """Restores what :meth:`state_dict` returned."""


class UniformSegments(Drawing):
    r"""Equal probabilities, :math:`p_i = 1 / n`."""

    def draw(self, segments: Sequence[Segment], count: int, generator: torch.Generator) -> dict[Segment, float]:
        order = torch.randperm(len(segments), generator=generator)
        return {segments[i]: len(segments) / count for i in sorted(order[:count].tolist())}


class SegmentsByNorm(Drawing):
    r"""Probabilities by the size of the gradient of each segment's term in earlier rollouts.

    .. math:: p_i = (1 - \alpha) \frac{r_i}{\sum_k r_k} + \frac{\alpha}{n}, \qquad
        r_i^2 \leftarrow \lambda r_i^2 + (1 - \lambda) |\hat g_i|^2,

    each at most :math:`1 / m`; what is cut off goes to the others. A segment that has not been drawn yet counts as much as the
    mean of the others. The norms cost no further pass; with several ranks they cost one average of the term's gradient over ranks
    a segment, because the norm of the mean is not the mean of the norms.

    Args:
        uniform: The share :math:`\alpha \in (0, 1]` of equal probabilities. A factor is at most :math:`n / (m \alpha)`.
        decay: The decay :math:`\lambda \in [0, 1)` of the running means.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, uniform: float = 0.2, decay: float = 0.9) -> None:
        if not (0 < uniform <= 1 and 0 <= decay < 1):
            raise ValueError(
                f"SegmentsByNorm: expected uniform in (0, 1] and decay in [0, 1), got uniform={uniform}, decay={decay}"
            )
        self.uniform = uniform
        self.decay = decay
        self.squares: dict[int, float] = {}
        r"""The running :math:`r_i^2`, by the number :math:`j` of the state :math:`x_j` in which the segment ends."""
        self.counts: dict[int, int] = {}

    def probabilities(self, segments: Sequence[Segment], count: int) -> Tensor:
        r"""Returns the :math:`p_i`, with shape :math:`(n)`, in float64."""
        known = [self.squares[s.stop] ** 0.5 for s in segments if s.stop in self.squares]
        other = sum(known) / max(len(known), 1)
        r = [self.squares[s.stop] ** 0.5 if s.stop in self.squares else other for s in segments]
        sizes = torch.tensor(r, dtype=torch.float64)
        shares = sizes / sizes.sum() if sizes.sum() > 0 else torch.full_like(sizes, 1 / len(r))
        return capped((1 - self.uniform) * shares + self.uniform / len(r), 1 / count)

    def draw(self, segments: Sequence[Segment], count: int, generator: torch.Generator) -> dict[Segment, float]:
        p = self.probabilities(segments, count)
        # systematic sampling: m points at equal distances, each in the interval of one segment
        points = (torch.rand((), generator=generator, dtype=p.dtype) + torch.arange(count)) / count
        chosen = torch.searchsorted(p.cumsum(0), points, right=True).clamp_max(len(p) - 1)
        return {segments[i]: 1 / (count * p[i].item()) for i in chosen.tolist()}

    def measure(
        self, terms: Iterator[Term], drawn: Mapping[Segment, float], weights: Collection[Tensor]
    ) -> Iterator[Term]:
        squares: list[tuple[tuple[int, ...], Tensor]] = []
        for term in terms:
            # the consumer runs the backward before it asks for the next term
            with collecting(weights) as gradients:
                yield term
            squares.append((term.steps, square_of_mean(gradients)))
            del term  # its graph must be gone before the next is built
        self._learn(drawn, squares)

    def _learn(self, drawn: Mapping[Segment, float], squares: Sequence[tuple[tuple[int, ...], Tensor]]) -> None:
        for segment, factor in drawn.items():
            square = sum((value.item() for steps, value in squares if steps == segment.steps), 0.0)
            if square < float("inf"):
                j = segment.stop
                n = self.counts[j] = self.counts.get(j, 0) + 1
                # the bias correction of Adam, as a decay that begins at 0
                keep = min(self.decay, 1 - 1 / n)
                self.squares[j] = keep * self.squares.get(j, 0.0) + (1 - keep) * square / factor**2

    def state_dict(self) -> dict[str, object]:
        return {"squares": dict(self.squares), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.squares, self.counts = dict(state["squares"]), dict(state["counts"])  # type: ignore[call-overload]


def capped(p: Tensor, most: float) -> Tensor:
    r"""Returns probabilities of at most ``most``; what is cut off is shared by the others in proportion.

    Args:
        p: Positive probabilities with the sum 1, with shape :math:`(n)`.
        most: The largest probability, at least :math:`1 / n`.
    """
    full = torch.zeros_like(p, dtype=torch.bool)
    while (over := (p > most * (1 + 1e-9)) & ~full).any():
        full |= over
        rest = p.where(~full, 0)
        p = torch.where(full, most, rest * (1 - most * full.sum()) / rest.sum())
    return p


@contextmanager
def collecting(weights: Collection[Tensor]) -> Iterator[list[Tensor]]:
    """A context whose value has, afterwards, the gradient of each weight from the backward passes within; 0 without one."""
    gradients = [torch.zeros_like(w, dtype=torch.promote_types(w.dtype, torch.float32)) for w in weights]
    pairs = list(zip(weights, gradients, strict=True))
    handles = [weight.register_hook(_adding(into)) for weight, into in pairs if not is_split(weight)]
    # no gradient passes a weight that is split: it is averaged over ranks, and added to what is there
    split = [(weight, into) for weight, into in pairs if is_split(weight)]
    for weight, into in split:
        if weight.grad is not None:
            into.sub_(weight.grad)
    try:
        yield gradients
    finally:
        for handle in handles:
            handle.remove()
    for weight, into in split:
        if weight.grad is not None:
            into.add_(weight.grad)


def _adding(into: Tensor) -> Callable[[Tensor], None]:
    """Returns a hook that adds a gradient to a total, in place."""

    def add(gradient: Tensor) -> None:
        into.add_(gradient.detach())

    return add


def square_of_mean(gradients: Sequence[Tensor]) -> Tensor:
    r"""Returns :math:`|\frac1W \sum_r g_r|^2` from this rank's gradients :math:`g_r`; one that is split is the mean already."""
    means = [g if is_split(g) else mean(g) for g in gradients]
    return torch.stack([gathered(m.square().sum()) for m in means]).sum()
