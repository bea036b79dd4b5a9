"""Time, passes and memory of a piece of work."""

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from rlr.chain import Chain


@dataclass
class Passes:
    """Evaluations of the network on the whole batch, and how many of them were run backward."""

    forward: float = 0
    backward: float = 0


@contextmanager
def counted(chain: Chain, batch: int) -> Iterator[Passes]:
    """Counts passes through the chain's model; half a batch counts half."""
    passes, denoise = Passes(), chain.model.denoise

    def count(x: Tensor, *rest: Any) -> Tensor:
        share = len(x) / batch
        passes.forward += share
        out = denoise(x, *rest)
        if out.requires_grad:
            out.register_hook(lambda gradient: setattr(passes, "backward", passes.backward + share))
        return out

    chain.model.denoise = count  # type: ignore[method-assign, assignment]
    try:
        yield passes
    finally:
        chain.model.denoise = denoise  # type: ignore[method-assign]


class Storages(TorchDispatchMode):
    """Follows the bytes of all tensors that are made inside, whether by forward or by backward."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = {id(t.untyped_storage()) for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_iter(out):
            # a view or an in-place result lives in a storage that was there before
            if isinstance(tensor, Tensor) and id(tensor.untyped_storage()) not in inputs:
                self._enter(tensor)
        return out

    def size(self, tensor: Tensor) -> int:
        """Returns the bytes that count for the memory of a tensor."""
        return tensor.untyped_storage().nbytes()

    def _enter(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = self.size(tensor)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._leave, size)

    def _leave(self, size: int) -> None:
        self.alive -= size


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Returns the most bytes of tensors that ``work`` has alive at once, beyond those there before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with Storages() as storages:
        work()
    return storages.peak


def seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Returns the median time of ``repeats`` runs after one that does not count."""
    work()
    return median(_time(work, device) for _ in range(repeats))


@dataclass(frozen=True)
class Cost:
    """What one estimate costs.

    Args:
        seconds: The seconds, those of the CPU where the work is done there; other processes then take no part in them.
        peak_bytes: The most bytes of tensors alive at once, beyond weights and those there before.
    """

    seconds: float
    peak_bytes: int


def spent(work: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    """Returns what ``work`` returns, and its seconds as :class:`Cost` counts them."""
    _wait(device)
    start = clock(device)
    found = work()
    _wait(device)
    return found, clock(device) - start


def clock(device: torch.device) -> float:
    """Returns the seconds since some moment: those of this process on a CPU, which it may share, and else those of the world."""
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _time(work: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start
