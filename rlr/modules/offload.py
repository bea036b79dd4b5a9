"""The CPU's memory as a store for what a backward pass needs."""

from collections.abc import Iterable

from torch import Tensor
from torch.autograd.graph import save_on_cpu


class Offload(save_on_cpu):
    r"""Within, activations that a graph saves for its backward pass wait for it in the CPU's memory.

    Gradients are the same. Saved weights stay where they are: they take up that memory in any case, and
    copying them would cost more time than all activations do.

    Args:
        weights: The weights.
        pin: Whether the memory is pinned, which copies to a GPU need to be fast.
    """

    def __init__(self, weights: Iterable[Tensor], pin: bool) -> None:
        super().__init__(pin_memory=pin)
        store, fetch = self.pack_hook, self.unpack_hook
        # by storage: a layer may save a view, such as its transposed weight
        stay = {weight.untyped_storage().data_ptr() for weight in weights}
        self.pack_hook = lambda x: x if x.untyped_storage().data_ptr() in stay else store(x)
        self.unpack_hook = lambda kept: kept if isinstance(kept, Tensor) else fetch(kept)
