"""Other values for the trained weights, for a while."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from rlr.models.base import DiffusionModel
from rlr.modules.alignment import Alignment


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


class ReferenceWeights:
    """The weights of the base model.

    A model that can switch its additions off (a LoRA) does so. Of any other model the trained weights are copied to the main memory
    before a checkpoint is loaded into them.

    Args:
        module: The module, before a checkpoint is loaded.
    """

    def __init__(self, module: Alignment) -> None:
        self.module = module
        self._copy: dict[str, Tensor] = {}
        # weights that have seen training are no base
        if module.progress.batches == 0 and not module.chain.model.has_reference:
            self._copy = {name: weight.detach().cpu().clone() for name, weight in module.chain.model.trainable.items()}

    @property
    def known(self) -> bool:
        """Whether the base model can be restored."""
        return bool(self._copy) or self.module.chain.model.has_reference

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Within, the model is the base model; afterwards it is as it was, to the bit, also after an exception."""
        model = self.module.chain.model
        with model.reference() if model.has_reference else swapped(model, self._copy):
            yield
