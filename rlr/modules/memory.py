"""What is given up to save memory."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu

from rlr.chain import Chain
from rlr.models.base import DiffusionModel
from rlr.samplers import Sampler
from rlr.storage import Storage


@dataclass(frozen=True)
class Memory:
    """What is given up to save memory on the accelerator.

    Args:
        checkpoint_steps: Whether replayed steps recompute their activations in the backward pass.
        offload_activations: Whether activations wait for the backward pass in the CPU's memory, at the cost of copying
            them twice; see :class:`Offload`.
        trajectories: How the states and noises of rollouts are kept.
        micro_batch: The most samples of a batch that pass the network, the decoder and the reward at once, at the cost of a further
            pass of each replayed step; None for all. See :mod:`rlr.microbatch`.

    Raises:
        ValueError: If ``micro_batch`` is less than 1.
    """

    checkpoint_steps: bool = False
    offload_activations: bool = False
    trajectories: Storage = field(default_factory=Storage)
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        """Raises a ``ValueError`` for a value out of its range."""
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(
                f"memory.micro_batch: expected at least 1, got {self.micro_batch}; set null for all of a batch"
            )

    def chain(self, model: DiffusionModel, sampler: Sampler) -> Chain:
        """Returns the chain of a model and a sampler."""
        return Chain(model, sampler, self.checkpoint_steps, self.trajectories, self.micro_batch)

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
