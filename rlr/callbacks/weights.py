"""The weights of the base model in place of the trained ones, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from rlr.models.swapped import swapped
from rlr.modules.alignment import Alignment


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
