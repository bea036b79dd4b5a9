"""Other values for the trained weights, for a while."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from rlr.models.base import DiffusionModel


@contextmanager
def swapped(model: DiffusionModel, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within, the trained weights have these values; afterwards their own again, to the bit, also after an exception."""
    own = {name: weight.detach().clone() for name, weight in model.trainable.items()}
    try:
        _set(model, values)
        yield
    finally:
        _set(model, own)


@torch.no_grad()
def _set(model: DiffusionModel, values: Mapping[str, Tensor]) -> None:
    for name, weight in model.trainable.items():
        weight.data.copy_(values[name])
