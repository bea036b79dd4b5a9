"""The processes that train together, and what they tell each other."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist


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


def gather_texts(texts: Sequence[str]) -> list[list[str]]:
    r"""Returns the :math:`B` texts of each of the :math:`W` ranks."""
    if world_size() == 1:
        return [list(texts)]
    parts: list[list[str]] = [[]] * world_size()
    dist.all_gather_object(parts, [str(text) for text in texts])
    return parts
