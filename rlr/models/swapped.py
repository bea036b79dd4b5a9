"""Other values for the trained weights, for a while."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from rlr.distributed import is_split, split_like
from rlr.models.base import DiffusionModel


@contextmanager
def swapped(model: DiffusionModel, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within, the trained weights have these values; afterwards their own again, to the bit, also after an exception."""
    weights = model.trainable
    own = {name: weight.data.clone() if is_split(weight) else weight.data for name, weight in weights.items()}
    try:
        for name, weight in weights.items():
            _set(weight, values[name].detach())
        yield
    finally:
        for name, weight in weights.items():
            _set(weight, own[name])


def _set(weight: Tensor, value: Tensor) -> None:
    if is_split(weight):
        # a pass gathers the memory of this process's part of the weight, and not what the weight is set to
        weight.data.copy_(split_like(value, weight))
    else:
        # no copy where the value is on the weight's device; its own stay where they are
        weight.data = value.to(weight)
