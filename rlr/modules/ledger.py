"""The gradient of one batch, entered term by term."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rlr.estimators.base import Term


class Entry(NamedTuple):
    """What is remembered of a term: whether its loss and the gradient after it are finite numbers."""

    name: str
    steps: tuple[int, ...]
    loss: Tensor
    gradient: Tensor


class Ledger:
    r"""Adds the gradients of terms to ``.grad``, and remembers which term brought what.

    Args:
        weights: The trained weights.
        by_kind: Whether to keep the sum of each kind of term apart, at one more copy of the weights a kind.
    """

    def __init__(self, weights: Sequence[nn.Parameter], by_kind: bool = True) -> None:
        self.weights = weights
        self.by_kind = by_kind
        self.kinds: dict[str, list[Tensor]] = {}
        self.entries: list[Entry] = []

    def enter(self, term: Term, backward: Callable[[Tensor], None]) -> None:
        """Runs ``backward`` on the term's loss and enters what it did to the gradients.

        Raises:
            ValueError: If the loss does not depend on the weights.
        """
        if not term.loss.requires_grad:
            raise ValueError(
                f"the {term.name} term of steps {_span(term.steps)} has no gradient in the trained weights; "
                "a reward that detaches its pixels must say differentiable = False"
            )
        held = self._take() if self.by_kind else []
        backward(term.loss)
        finite = _norm(self.gradients()).isfinite()
        self.entries.append(Entry(term.name, term.steps, term.loss.detach().isfinite(), finite))
        if self.by_kind:
            self._merge(term.name, held)

    def gradients(self) -> list[Tensor]:
        """Returns the gradients that there are."""
        return [w.grad for w in self.weights if w.grad is not None]

    def failure(self, gradients: bool = True) -> str | None:
        """Names the first term with a loss (or gradient, if asked for) that is not finite, and its steps."""
        for entry in self.entries:
            for what, finite in (("loss", entry.loss), ("gradient", entry.gradient)):
                if not finite and (gradients or what == "loss"):
                    return f"the {what} of the {entry.name} term of steps {_span(entry.steps)} is not finite"
        return None

    def norms(self) -> dict[str, Tensor]:
        """Returns the norm of the gradient of each kind."""
        return {name: _norm(parts) for name, parts in self.kinds.items()}

    def cosines(self) -> dict[tuple[str, str], Tensor]:
        """Returns the cosine of the angle between the gradients of each pair of kinds."""
        norms = self.norms()
        return {
            (a, b): _dot(self.kinds[a], self.kinds[b]) / (norms[a] * norms[b]).clamp(min=torch.finfo().tiny)
            for a, b in combinations(self.kinds, 2)
        }

    def facts(self, scale: float = 1.0) -> Iterator[tuple[str, Tensor]]:
        """Yields norms and cosines as logs name them, for gradients that are ``scale`` times as large as they should be."""
        for name, norm in self.norms().items():
            yield f"gradient/{name}", norm / scale
        for (one, other), cosine in self.cosines().items():
            yield f"cosine/{one}_{other}", cosine

    def _take(self) -> list[Tensor | None]:
        held = [w.grad for w in self.weights]
        for w in self.weights:
            w.grad = None
        return held

    def _merge(self, name: str, held: list[Tensor | None]) -> None:
        new = [torch.zeros_like(w) if w.grad is None else w.grad for w in self.weights]
        if name in self.kinds:
            torch._foreach_add_(self.kinds[name], new)
        else:
            self.kinds[name] = [g.clone() for g in new]
        for w, old, g in zip(self.weights, held, new, strict=True):
            w.grad = g if old is None else old.add_(g)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.get_total_norm(tensors) if tensors else torch.zeros(())


def _dot(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum()


def _span(steps: tuple[int, ...]) -> str:
    r"""Writes steps as ``t = 4 … 1``, or ``t = 3``."""
    return f"t = {steps[0]}" if len(steps) == 1 else f"t = {steps[0]} … {steps[-1]}"
