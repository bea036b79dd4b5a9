"""The processes that train together, and the exchange of values between them."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor, distribute_tensor


def world_size() -> int:
    """Returns the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns this process's number among them."""
    return dist.get_rank() if world_size() > 1 else 0


def gather(values: Tensor) -> Tensor:
    r"""Returns the values of all ranks, with shape :math:`(W, B)`, from this rank's :math:`(B)`; row ``rank()`` is ours."""
    if world_size() == 1:
        return values.unsqueeze(0)
    parts = [torch.empty_like(values) for _ in range(world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.stack(parts)


def gather_objects(objects: Any) -> list[Any]:
    r"""Returns the objects of each of the :math:`W` ranks; row ``rank()`` is ours."""
    if world_size() == 1:
        return [objects]
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, objects)
    return parts


def gather_texts(texts: Sequence[str]) -> list[list[str]]:
    r"""Returns the :math:`B` texts of each of the :math:`W` ranks."""
    return gather_objects([str(text) for text in texts])


def total(values: Tensor) -> Tensor:
    """Returns the sum over all ranks, with the shape of ``values``."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def mean(values: Tensor) -> Tensor:
    """Returns the mean over all ranks, with the shape of ``values``."""
    return total(values) / world_size()


def any_rank(flag: bool) -> bool:
    """Returns whether the flag is set on any rank."""
    if world_size() == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    return bool(total(torch.tensor(float(flag), device=device)) > 0)


def synchronize(tensors: Iterable[Tensor]) -> None:
    """Copies rank 0's values to all ranks, in place."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.data, 0)


def is_split(value: Any) -> bool:
    """Returns whether each process has a part of a tensor."""
    return isinstance(value, DTensor)


def gathered(value: Any) -> Any:
    """Returns a tensor whole, and anything else as it is; all processes call it together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def split_like(value: Any, weight: Tensor) -> Any:
    """Returns a tensor of the shape of a weight in its type and place: this process's part of it where the weight is split.

    All processes have the same tensor, and nothing is sent. Anything else is returned as it is.
    """
    if not isinstance(value, Tensor) or value.shape != weight.shape or isinstance(value, DTensor):
        return value
    value = value.to(weight)
    if not isinstance(weight, DTensor):
        return value
    return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)


def local(value: Tensor) -> Tensor:
    """Returns this process's part of a tensor that is split, and any other tensor as it is."""
    return value.to_local() if isinstance(value, DTensor) else value
