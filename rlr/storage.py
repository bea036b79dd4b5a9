r"""Where and how exactly the latents of a rollout are kept until an estimator reads them.

A rollout of :math:`T` steps keeps :math:`T + 1` states and as many noises, which for videos is gigabytes a batch. In bfloat16 they
take half. The chain itself is then one of rounded latents: with :math:`\lfloor \cdot \rceil` for rounding,

.. math:: x_T = \lfloor z_T \rceil, \qquad
    x_{t-1} = \bigl\lfloor \mu_\theta(x_t) + \sigma_t \lfloor z_{t-1} \rceil \bigr\rceil \text{ for } t > 1, \qquad
    x_0 = \mu_\theta(x_1) + \sigma_1 z_0,

and a replay rounds as the rollout did. So the recorded states are those that were visited: a replayed step equals the recorded
one, the likelihood ratios of a first update are 1, and the reward is that of the recorded sample. What rounding adds:

* A **likelihood ratio** is that of the density in the rounded state instead of the probability of its cell of width :math:`h`. Its
  gradient is too large by about :math:`h^2 / 12 \sigma_t^2` of itself.
* A **pathwise** gradient takes the error of rounding for a constant, as if it were noise.
* The samples are those of a chain with this additional noise, whose standard deviation is at most :math:`2^{-9}` of a state in each
  step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


class StoredLatents:
    r"""The latents :math:`x_0, \dots, x_T` of a batch, each returned in the place and type in which it is computed with.

    Args:
        last: The :math:`x_0`, exactly, with shape :math:`(B, *)`.
        rest: The :math:`x_1, \dots, x_T`, with shape :math:`(T, B, *)`.
        device: The device on which they are computed with.
    """

    def __init__(self, last: Tensor, rest: Tensor, device: torch.device) -> None:
        self.last = last
        self.rest = rest
        self.device = device

    @property
    def shape(self) -> torch.Size:
        r"""The shape :math:`(T + 1, B, *)`."""
        return torch.Size((len(self.rest) + 1, *self.last.shape))

    @property
    def dtype(self) -> torch.dtype:
        """The type in which they are computed with."""
        return self.last.dtype

    @property
    def bytes(self) -> int:
        """The bytes that they take."""
        return sum(part.numel() * part.element_size() for part in (self.last, self.rest))

    def __getitem__(self, t: int) -> Tensor:
        return (self.rest[t - 1] if t else self.last).to(self.device, self.dtype)

    def __setitem__(self, t: int, x: Tensor) -> None:
        (self.rest[t - 1] if t else self.last).copy_(x)

    def select(self, rows: Tensor) -> Self:
        """Returns some of the samples, given by their rows in the batch."""
        here = rows.to(self.rest.device)
        return type(self)(self.last[here], self.rest[:, here], self.device)

    @classmethod
    def join(cls, batches: Sequence[Self]) -> Self:
        """Returns several batches as one."""
        last, rest = torch.cat([one.last for one in batches]), torch.cat([one.rest for one in batches], 1)
        return cls(last, rest, batches[0].device)


Latents = Tensor | StoredLatents
r"""The latents :math:`x_0, \dots, x_T` of a batch: a tensor with shape :math:`(T + 1, B, *)`, or what is kept of one."""


@dataclass(frozen=True)
class Storage:
    r"""How the states and noises of a rollout are kept; by default as they were computed.

    Args:
        on_cpu: Whether they wait in the CPU's memory, and one step at a time comes to the device; their values are the same.
        bfloat16: Whether all but :math:`x_0` and :math:`z_0` are rounded to bfloat16, where the sampler draws them already.
    """

    on_cpu: bool = False
    bfloat16: bool = False

    @property
    def changes_nothing(self) -> bool:
        """Whether latents are kept as they were computed."""
        return not (self.on_cpu or self.bfloat16)

    def place(self, device: torch.device) -> torch.device:
        """Returns where latents are kept that are computed with on a device."""
        return torch.device("cpu") if self.on_cpu else device

    def room(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Latents:
        r"""Returns room for latents.

        Args:
            shape: Their shape :math:`(T + 1, B, *)`.
            dtype: The type in which they are computed with.
            device: The device on which they are computed with.
        """
        if self.changes_nothing:
            return torch.empty(tuple(shape), dtype=dtype, device=device)
        place, (steps, *one) = self.place(device), shape
        # copies between a GPU and such memory are fast
        pinned = device.type == "cuda" and place.type == "cpu"
        kind = torch.bfloat16 if self.bfloat16 else dtype
        last, rest = (
            torch.empty(size, dtype=of, device=place, pin_memory=pinned)
            for size, of in ((one, dtype), ((steps - 1, *one), kind))
        )
        return StoredLatents(last, rest, device)

    def keep(self, latents: Latents, device: torch.device) -> Latents:
        r"""Returns latents, with shape :math:`(T + 1, B, *)`, as they are kept.

        Args:
            latents: The latents, on any device; those that are kept already are returned as they are.
            device: The device on which they are computed with.
        """
        if isinstance(latents, StoredLatents) or self.changes_nothing:
            return latents
        kept = self.room(latents.shape, latents.dtype, device)
        for t in range(len(latents)):
            kept[t] = latents[t]
        return kept

    def rounded(self, x: Tensor) -> Tensor:
        r"""Returns :math:`\lfloor x \rceil` in the type and with the gradient of ``x``: what is kept of a state but the last."""
        if not self.bfloat16:
            return x
        error = x.detach().to(torch.bfloat16).to(x.dtype) - x.detach()
        return x + error


def select(latents: Latents, rows: Tensor) -> Latents:
    """Returns some of the samples, given by their rows in the batch."""
    return latents.select(rows) if isinstance(latents, StoredLatents) else latents[:, rows.to(latents.device)]


def join(batches: Sequence[Latents]) -> Latents:
    """Returns several batches, which are kept alike, as one."""
    kept = [batch for batch in batches if isinstance(batch, StoredLatents)]
    if kept:
        return StoredLatents.join(kept)
    return torch.cat([batch for batch in batches if isinstance(batch, Tensor)], 1)
