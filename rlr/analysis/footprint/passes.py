"""The bytes that a pass through a network takes: in the forward pass, kept for the backward pass, and in that."""

from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from rlr.analysis.footprint.fake import Fake
from rlr.analysis.measure import Storages
from rlr.analysis.offload_stats import Bytes

Function = Callable[[Tensor], Tensor]
"""A function of latents."""


@dataclass(frozen=True)
class Pass:
    """The bytes of a pass, beyond weights, input and output.

    Args:
        forward: The most in the forward pass.
        kept: Those that the graph keeps until the backward pass.
        waiting: Those that wait in the CPU's memory until the backward pass.
        backward: The most in the backward pass, beyond what is kept.
    """

    forward: int
    kept: int = 0
    waiting: int = 0
    backward: int = 0


@dataclass(frozen=True)
class Passes:
    """The passes of a function.

    Args:
        rows: The number of samples with which they were counted.
        plain: The pass without a graph.
        weights: The pass with a graph in the weights alone; its backward pass counts as the other one.
        inputs: The pass with a graph in the input and in the weights.
    """

    rows: int
    plain: Pass
    weights: Pass
    inputs: Pass


def passes(
    fake: Fake,
    function: Function,
    shape: Sequence[int],
    weights: Sequence[Tensor] = (),
    stay: Iterable[Tensor] | None = None,
) -> Passes:
    r"""Counts the bytes of the passes of a function.

    Args:
        fake: The tensors without content, of which the function's weights are.
        function: The function.
        shape: The shape :math:`(B, *)` of its input.
        weights: The trained weights that it depends on.
        stay: The tensors that do not wait in the CPU's memory, where all else that a graph keeps does; None if nothing does.
    """
    storages = None if stay is None else {tensor.untyped_storage()._cdata for tensor in stay}
    with fake.active():
        x = torch.empty(tuple(shape))
        with torch.no_grad():
            plain = _plain(function, x)
        alone = _graph(function, x, weights, storages, backward=False) if weights else plain
        inputs = _graph(function, x.requires_grad_(), weights, storages)
    return Passes(len(x), plain, replace(alone, backward=inputs.backward), inputs)


def _plain(function: Function, x: Tensor) -> Pass:
    with Storages() as storages:
        out = function(x)
    return Pass(storages.peak - _bytes(out))


def _graph(
    function: Function, x: Tensor, weights: Sequence[Tensor], stay: Container[int] | None, backward: bool = True
) -> Pass:
    waiting = Bytes()
    with Storages() as storages:
        with nullcontext() if stay is None else _offloaded(waiting, stay):
            out = function(x)
        most, kept, waited = storages.peak - _bytes(out), storages.alive - _bytes(out), waiting.alive
        further = _backward(out, [x, *weights], storages) if backward and out.requires_grad else 0
    return Pass(most, kept, waited, further) if out.requires_grad else Pass(most)


def _backward(out: Tensor, leaves: Sequence[Tensor], storages: Storages) -> int:
    """Returns the most bytes in a backward pass, beyond what was alive before and the gradients of the leaves."""
    slope = torch.ones_like(out)
    before = storages.peak = storages.alive
    out.backward(slope)
    gradients = sum(_bytes(leaf.grad) for leaf in leaves if leaf.grad is not None)
    for leaf in leaves:
        leaf.grad = None
    return max(0, storages.peak - before - gradients)


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


class Waiting:
    """A tensor that waits in the CPU's memory: its shape, and its bytes while it does.

    Args:
        shape: Its shape.
        dtype: Its type.
        waiting: Counts the bytes.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, waiting: Bytes) -> None:
        self.shape, self.dtype, self.waiting = shape, dtype, waiting
        self.size = prod(shape) * dtype.itemsize
        waiting.enter(self.size)

    def __del__(self) -> None:
        self.waiting.alive -= self.size

    def back(self) -> Tensor:
        """Returns the tensor in new memory."""
        return torch.empty(tuple(self.shape), dtype=self.dtype)


def _offloaded(waiting: Bytes, stay: Container[int]) -> AbstractContextManager[object]:
    """Returns a context in which what a graph keeps waits in the CPU's memory, but for some storages."""

    def pack(x: Tensor) -> Tensor | Waiting:
        return x if x.untyped_storage()._cdata in stay else Waiting(x.shape, x.dtype, waiting)

    return saved_tensors_hooks(pack, lambda kept: kept.back() if isinstance(kept, Waiting) else kept)
