"""Other values for the trained weights, for a while."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from rlr.models.base import DiffusionModel


@contextmanager
def swapped(model: DiffusionModel, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within, the trained weights have these values; afterwards their own again, to the bit, also after an exception."""
    own = {name: weight.data for name, weight in model.trainable.items()}
    try:
        for name, weight in model.trainable.items():
            # no copy where the values are on the weight's device; its own stay where they are
            weight.data = values[name].detach().to(weight)
        yield
    finally:
        for name, weight in model.trainable.items():
            weight.data = own[name]
