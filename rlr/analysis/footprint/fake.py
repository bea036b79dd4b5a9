"""Networks and tensors with shapes and no content, in which the bytes of a pass can be counted without the memory for them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

aten: Any = torch.ops.aten

NORMS = ("group_norm", "layer_norm")
"""The functions that autocast computes in float32 on a GPU, and in the lower precision on a CPU."""


class Assumed(TorchDispatchMode):
    """Answers questions about the content of tensors: conditions hold, and numbers are 1/2, a pixel in its range.

    What is indexed with a mask has all rows, and with the negation of a mask none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.negated: WeakSet[Tensor] = WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = args[0] if args else None
        if isinstance(first, FakeTensor) and first.constant is None:
            if func is aten._local_scalar_dense.default:
                return True if first.dtype == torch.bool else 0.5 if first.is_floating_point() else 0
            if func is aten.equal.default:
                return True
            if func is aten.nonzero.default:
                return first.new_empty((first.numel(), first.ndim), dtype=torch.int64)
            if func is aten.index.Tensor and any(m is not None and m.dtype == torch.bool for m in args[1]):
                return _rows(first, args[1], self.negated)
            if func is aten.bitwise_not.default:
                result = func(*args)
                self.negated.add(result)
                return result
        return func(*args, **(kwargs or {}))


def _rows(x: Tensor, masks: list[Tensor | None], negated: WeakSet[Tensor]) -> Tensor:
    """Returns the elements of a tensor where masks hold: all, or none for a negated mask."""
    (mask,) = [mask for mask in masks if mask is not None]
    at = next(k for k, m in enumerate(masks) if m is not None)
    count = 0 if any(mask is other for other in negated) else mask.numel()
    return x.new_empty((*x.shape[:at], count, *x.shape[at + mask.ndim :]))


@contextmanager
def norms_of_gpu() -> Iterator[None]:
    """Within, autocast normalizes in float32, as on a GPU; the CPU's does so in the lower precision."""
    own = {name: getattr(nn.functional, name) for name in NORMS}
    try:
        for name, function in own.items():
            # no mode of torch's functions, which would not be active where a backward pass computes again
            setattr(nn.functional, name, partial(_in_float32, function))
        yield
    finally:
        for name, function in own.items():
            setattr(nn.functional, name, function)


def _in_float32(function: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
    if torch.is_autocast_enabled("cpu"):
        args, options = tree_map_only(Tensor, lambda x: x.float(), (args, options))
    return function(*args, **options)


def start_autograd() -> None:
    """Starts autograd's engine on the devices of this machine.

    At its first backward pass the engine starts a thread for each device but the CPU, after which forked processes cannot go
    backward. :class:`FakeTensorMode` shows a GPU that is not there, so the engine has to be started before.
    """
    torch.ones((), requires_grad=True).backward()


class Fake:
    """A world of tensors without content.

    Args:
        autocast: The type in which matrices are multiplied, as the trainer's mixed precision asks for; None without.
    """

    def __init__(self, autocast: torch.dtype | None = None) -> None:
        start_autograd()
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.autocast = autocast

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, tensors are made without content, and operations compute shapes alone."""
        with ExitStack() as stack:
            for context in (self.mode, Assumed(), norms_of_gpu()):
                stack.enter_context(context)
            if self.autocast is not None:
                stack.enter_context(torch.autocast("cpu", dtype=self.autocast))
            yield

    def tensor(self, like: Tensor) -> Tensor:
        """Returns a tensor of the same shape, strides and type, and with ``requires_grad`` alike."""
        with self.mode:
            made = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="cpu")
        return made.requires_grad_(like.requires_grad)

    def empty(self, module: nn.Module) -> None:
        """Replaces all tensors of a module by ones without content; those that are shared stay shared."""
        made: dict[int, Any] = {}
        for part in module.modules():
            for name, weight in part._parameters.items():
                if weight is not None and id(weight) not in made:
                    made[id(weight)] = nn.Parameter(self.tensor(weight), weight.requires_grad)
                part._parameters[name] = None if weight is None else made[id(weight)]
            # some keep tables of theirs as plain attributes
            for held in (part._buffers, vars(part)):
                for name, tensor in [(n, t) for n, t in held.items() if isinstance(t, Tensor)]:
                    held[name] = made.setdefault(id(tensor), self.tensor(tensor))
