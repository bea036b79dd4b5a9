"""What is given up to save memory."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu


@dataclass(frozen=True)
class Memory:
    """What is given up to save memory on the accelerator.

    Args:
        checkpoint_steps: Whether replayed steps recompute their activations in the backward pass.
        offload_activations: Whether activations wait for the backward pass in the CPU's memory, at the cost of copying
            them twice; see :class:`Offload`.
    """

    checkpoint_steps: bool = False
    offload_activations: bool = False

    def saving(self, weights: Iterable[Tensor], device: torch.device) -> AbstractContextManager[object]:
        """Returns the context in which graphs are built.

        Args:
            weights: The weights, which stay where they are.
            device: The device on which graphs are built.
        """
        return Offload(weights, pin=device.type == "cuda") if self.offload_activations else nullcontext()


class Offload(save_on_cpu):
    r"""A context in which activations that a graph saves for its backward pass are moved to the CPU's memory.

    Gradients are the same. Weights stay where they are: they take up that memory in any case, and copying them would
    cost more time than all activations do.

    Args:
        weights: The weights.
        pin: Whether the memory is pinned, which makes copies to a GPU fast.
    """

    def __init__(self, weights: Iterable[Tensor], pin: bool) -> None:
        super().__init__(pin_memory=pin)
        store, fetch = self.pack_hook, self.unpack_hook
        # by storage: a layer may save a view, such as its transposed weight
        stay = {weight.untyped_storage().data_ptr() for weight in weights}
        self.pack_hook = lambda x: x if x.untyped_storage().data_ptr() in stay else store(x)
        self.unpack_hook = lambda kept: kept if isinstance(kept, Tensor) else fetch(kept)
