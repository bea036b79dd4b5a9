"""The boundary between a reward and training: at least float32, forward and backward, and finite samples alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Disables autocast and makes the default dtype at least float32, which Lightning's ``bf16-true`` lowers in a step."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.promote_types(default, torch.float32))
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        torch.set_default_dtype(default)


def isolate(function: Callable[[Tensor], Tensor], samples: Tensor) -> Tensor:
    """Returns ``function(samples)``, computed in :func:`full_precision` forward and backward.

    Autograd runs the backward of an operation under the autocast state of the caller of ``backward()``, which in
    Lightning is that of the training step. So the graph of ``function`` is one node of the outer graph, and its own
    backward runs within that node, outside autocast. A gradient of a gradient is not supported.

    Args:
        function: Maps samples to scores, each a function of its own sample; deterministic.
        samples: The samples.
    """
    if torch.is_grad_enabled() and samples.requires_grad:
        return _Isolated.apply(function, samples)
    with full_precision(samples.device.type):
        return function(samples)


class _Isolated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[[Tensor], Tensor], samples: Tensor) -> Tensor:
        ctx.function = function
        ctx.graph = _build(function, samples)
        ctx.save_for_backward(samples)
        scores: Tensor = ctx.graph[1].detach()
        if not ctx.graph[1].requires_grad:
            ctx.mark_non_differentiable(scores)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor]:
        # the first backward frees the graph, as autograd does; under retain_graph the next one builds it again
        leaf, scores = ctx.graph or _build(ctx.function, ctx.saved_tensors[0])
        ctx.graph = None
        with full_precision(slope.device.type):
            return None, torch.autograd.grad(scores, leaf, slope, allow_unused=True)[0]


def _build(function: Callable[[Tensor], Tensor], samples: Tensor) -> tuple[Tensor, Tensor]:
    leaf = samples.detach().requires_grad_()
    with torch.enable_grad(), full_precision(samples.device.type):
        return leaf, function(leaf)


def finite_rows(samples: Tensor) -> Tensor:
    r"""Returns which samples hold neither NaN nor infinity: booleans with shape :math:`(B)`."""
    finite = samples.detach().isfinite()
    return finite.flatten(1).all(1) if finite.ndim > 1 else finite
