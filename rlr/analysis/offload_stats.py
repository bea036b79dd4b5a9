"""What offloading moves: the most bytes that wait outside of the device's memory."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlr.modules.memory import Offload


@dataclass
class Bytes:
    """Bytes that wait now, and the most that did."""

    alive: int = 0
    peak: int = 0

    def enter(self, size: int) -> None:
        """Counts bytes in."""
        self.alive += size
        self.peak = max(self.peak, self.alive)


class OffloadedArray:
    """A saved tensor as an array, which no counter of tensors sees."""

    def __init__(self, tensor: Tensor, waiting: Bytes) -> None:
        self.array: Any = tensor.contiguous().flatten().view(torch.uint8).cpu().numpy().copy()
        self.shape, self.dtype, self.waiting = tensor.shape, tensor.dtype, waiting
        waiting.enter(self.array.nbytes)

    def __del__(self) -> None:
        self.waiting.alive -= self.array.nbytes

    def tensor(self, device: torch.device) -> Tensor:
        """Returns the tensor in new memory of a device."""
        found = torch.empty(self.shape, dtype=self.dtype, device=device)
        found.view(-1).view(torch.uint8).copy_(torch.from_numpy(self.array))
        return found


class CountedOffload(Offload):
    """Offload whose store is counted, and is another memory than the device's even where that is a CPU.

    Args:
        weights: The weights, which stay where they are.
        waiting: Counts what waits.
    """

    def __init__(self, weights: Iterable[Tensor], waiting: Bytes) -> None:
        super().__init__(weights, pin=False)
        choose = self.pack_hook
        self.pack_hook = lambda x: _park(choose(x), x, waiting)
        self.unpack_hook = lambda kept: kept if isinstance(kept, Tensor) else kept[1].tensor(kept[0])


def _park(chosen: Any, x: Tensor, waiting: Bytes) -> Any:
    return chosen if isinstance(chosen, Tensor) else (x.device, OffloadedArray(x, waiting))
