r"""Weights of the kinds of terms, estimated while training: a smaller error at the price of a bias.

An update has the gradients :math:`\hat g_1, \dots, \hat g_K` of :math:`K` kinds of terms, such as first, half and zeroth order, and
their sum estimates :math:`g`. With :math:`m_k = E[\hat g_k]`, weights :math:`w` have the mean squared error

.. math:: E\Bigl|\sum_k w_k \hat g_k - g\Bigr|^2 = w^\top S w - 2 w^\top A \mathbf 1 + \mathbf 1^\top A \mathbf 1,
    \qquad S_{kl} = E[\hat g_k \cdot \hat g_l], \quad A_{kl} = m_k \cdot m_l,

which :math:`w = S^{-1} A \mathbf 1` minimizes. A kind that is mostly noise gets a weight near 0, one without noise the weight 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Kinds = Mapping[str, Sequence[Tensor]]
"""The gradients of each kind of term, one tensor a trained weight."""


class Shrinkage:
    r"""The weights :math:`w = S^{-1} A \mathbf 1` from running moments of earlier updates, each at least 0 and at most ``limit``.

    A weight is above 1 where a kind stands for another one that is noisier and points the same way.

    :math:`A` needs products of independent gradients: that of an update and the running mean :math:`\bar g` of those before it,

    .. math:: A_{kl} \leftarrow \lambda A_{kl} + (1 - \lambda) \tfrac12 (\hat g_k \cdot \bar g_l + \hat g_l \cdot \bar g_k).

    The weights of an update do not depend on its own gradients. A new kind begins with the weight 1.

    Args:
        decay: The decay :math:`\lambda \in [0, 1)` of the moments.
        mean_decay: The decay of :math:`\bar g`, in [0, 1). A smaller one follows changes of the gradient faster.
        warmup: The number of first updates with the weight 1, at least 2.
        limit: The largest weight, at least 1.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, decay: float = 0.98, mean_decay: float = 0.9, warmup: int = 10, limit: float = 2.0) -> None:
        if not (0 <= decay < 1 and 0 <= mean_decay < 1 and warmup >= 2 and limit >= 1):
            raise ValueError(
                "Shrinkage: expected decay and mean_decay in [0, 1), warmup >= 2 and limit >= 1, got "
                f"decay={decay}, mean_decay={mean_decay}, warmup={warmup}, limit={limit}"
            )
        self.decay = decay
        self.mean_decay = mean_decay
        self.warmup = warmup
        self.limit = limit
        self.updates = 0
        self.names: list[str] = []
        self.means: dict[str, list[Tensor]] = {}
        self.moments = torch.zeros(2, 0, 0, dtype=torch.float64)
        r"""The running :math:`S` and :math:`A`, with shape :math:`(2, K, K)`."""

    def weights(self) -> dict[str, float]:
        """Returns the weight of each kind that has been observed."""
        if self.updates < self.warmup:
            return dict.fromkeys(self.names, 1.0)
        s, a = self.moments
        # the mean of a kind cannot be larger than its root mean square, and A is a matrix of products
        values, vectors = torch.linalg.eigh((a + a.T) / 2)
        a = vectors @ torch.diag(values.clamp_min(0)) @ vectors.T
        scale = s.diagonal().mean().clamp_min(1e-30)
        w = torch.linalg.solve(s + 1e-9 * scale * torch.eye(len(s), dtype=s.dtype), a.sum(1))
        return dict(zip(self.names, w.clamp(0, self.limit).tolist(), strict=True))

    def update(self, kinds: Kinds) -> None:
        """Takes up the gradients of an update; all ranks pass the same."""
        self._extend(kinds)
        zeros = [torch.zeros_like(g) for g in next(iter(kinds.values()))]
        now = [kinds.get(name, zeros) for name in self.names]
        if self.updates:
            before = [self.means[name] for name in self.names]
            s, a = _products(now, now), _products(now, before) / (1 - self.mean_decay**self.updates)
            new = torch.stack([s, (a + a.T) / 2])
            # the bias correction of Adam, as a decay that begins at 0
            keep = min(self.decay, 1 - 1 / self.updates)
            self.moments = keep * self.moments + (1 - keep) * new
        for name, gradients in zip(self.names, now, strict=True):
            torch._foreach_lerp_(self.means[name], list(gradients), 1 - self.mean_decay)
        self.updates += 1

    def _extend(self, kinds: Kinds) -> None:
        for name, gradients in kinds.items():
            if name not in self.means:
                self.names.append(name)
                self.means[name] = [torch.zeros_like(g) for g in gradients]
        missing = len(self.names) - self.moments.shape[1]
        self.moments = torch.nn.functional.pad(self.moments, (0, missing, 0, missing))

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that is kept from one update to the next."""
        return {"updates": self.updates, "names": self.names, "means": self.means, "moments": self.moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""
        self.updates, self.names, self.moments = state["updates"], list(state["names"]), state["moments"]
        # the running means change in place, and must not be those of another object
        self.means = {name: [tensor.clone() for tensor in tensors] for name, tensors in state["means"].items()}


def _products(one: Sequence[Sequence[Tensor]], other: Sequence[Sequence[Tensor]]) -> Tensor:
    """Returns the inner products of gradients, with shape (K, K), in float64 on the CPU."""
    rows = [
        torch.stack([torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum() for b in other]) for a in one
    ]
    return torch.stack(rows).double().cpu()
