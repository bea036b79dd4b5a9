"""What estimators share that backpropagate through an approximate path."""

from torch import Tensor


def pin(value: Tensor, path: Tensor) -> Tensor:
    r"""Returns ``value`` to the bit, with the gradient of ``path`` (a straight-through estimate)."""
    return value.detach() + (path - path.detach())


def capped(rewards: Tensor, ceiling: float | None) -> Tensor:
    r"""Returns :math:`\min(R, \lambda)`: samples with a reward above the ceiling have no gradient; None for no ceiling."""
    return rewards if ceiling is None else rewards.clamp(max=ceiling)
