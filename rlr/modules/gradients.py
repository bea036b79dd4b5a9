"""The gradient of one update, added up term by term."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rlr.distributed import gathered
from rlr.estimators.base import Term


class Entry(NamedTuple):
    """Whether a term's loss, and the gradient after its backward pass, are finite."""

    name: str
    steps: tuple[int, ...]
    loss: Tensor
    gradient: Tensor


class GradientAccumulator:
    r"""Adds the gradients of terms to ``.grad`` and keeps apart what each kind of term contributed.

    Args:
        weights: The trained weights.
        by_kind: Whether to keep the sum of each kind of term apart, at one more copy of the weights a kind.
    """

    def __init__(self, weights: Sequence[nn.Parameter], by_kind: bool = True) -> None:
        self.weights = weights
        self.by_kind = by_kind
        self.kinds: dict[str, list[Tensor]] = {}
        self.entries: list[Entry] = []
        self.sums: dict[str, Tensor] = {}
        """The sums of the terms' own metrics, by log name."""

    def add(self, term: Term, backward: Callable[..., None]) -> None:
        """Runs ``backward`` on the term's loss.

        Raises:
            ValueError: If the loss does not depend on the weights.
        """
        if not term.loss.requires_grad:
            raise ValueError(
                f"the {term.name} term of steps {_range(term.steps)} has no gradient in the trained weights; "
                "a reward that detaches its pixels must set differentiable = False"
            )
        before = self._take() if self.by_kind else []
        backward(term.loss, retain_graph=term.retain_graph)
        finite = norm(self.gradients()).isfinite()
        self.entries.append(Entry(term.name, term.steps, term.loss.detach().isfinite(), finite))
        for name, value in term.metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        if self.by_kind:
            self._merge(term.name, before)

    def gradients(self) -> list[Tensor]:
        """Returns the gradients that exist."""
        return [w.grad for w in self.weights if w.grad is not None]

    def failure(self, gradients: bool = True) -> str | None:
        """Names the first term whose loss (or gradient, with ``gradients``) is not finite, and its steps."""
        for entry in self.entries:
            for what, finite in (("loss", entry.loss), ("gradient", entry.gradient)):
                if not finite and (gradients or what == "loss"):
                    return f"the {what} of the {entry.name} term of steps {_range(entry.steps)} is not finite"
        return None

    def norms(self) -> dict[str, Tensor]:
        """Returns the norm of the gradient of each kind of term."""
        return {name: norm(parts) for name, parts in self.kinds.items()}

    def cosines(self) -> dict[tuple[str, str], Tensor]:
        """Returns the cosine of the angle between the gradients of each pair of kinds."""
        norms = self.norms()
        return {
            (a, b): _dot(self.kinds[a], self.kinds[b]) / (norms[a] * norms[b]).clamp(min=torch.finfo().tiny)
            for a, b in combinations(self.kinds, 2)
        }

    def metrics(self, scale: float = 1.0) -> Iterator[tuple[str, Tensor]]:
        """Yields norms and cosines by log name.

        Args:
            scale: The factor by which the gradients are too large.
        """
        for name, norm in self.norms().items():
            yield f"gradient/{name}", norm / scale
        for (one, other), cosine in self.cosines().items():
            yield f"cosine/{one}_{other}", cosine

    def weigh(self, factors: Mapping[str, float]) -> None:
        """Sets ``.grad`` to the sum of the kinds' gradients, each times its factor."""
        for i, weight in enumerate(self.weights):
            parts = [factor * self.kinds[name][i] for name, factor in factors.items()]
            weight.grad = torch.stack(parts).sum(0) if parts else None

    def _take(self) -> list[Tensor | None]:
        before = [w.grad for w in self.weights]
        for w in self.weights:
            w.grad = None
        return before

    def _merge(self, name: str, before: list[Tensor | None]) -> None:
        new = [torch.zeros_like(w) if w.grad is None else w.grad for w in self.weights]
        if name in self.kinds:
            torch._foreach_add_(self.kinds[name], new)
        else:
            self.kinds[name] = [g.clone() for g in new]
        for w, old, g in zip(self.weights, before, new, strict=True):
            w.grad = g if old is None else old.add_(g)


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Returns the norm of all tensors together, also of tensors that are split over the processes."""
    return gathered(torch.nn.utils.get_total_norm(tensors)) if tensors else torch.zeros(())


def _dot(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    return torch.stack([gathered((a * b).sum()) for a, b in zip(one, other, strict=True)]).sum()


def _range(steps: tuple[int, ...]) -> str:
    r"""Writes steps as ``t = 4 … 1``, or ``t = 3``."""
    return f"t = {steps[0]}" if len(steps) == 1 else f"t = {steps[0]} … {steps[-1]}"
