"""Text encoders without content, wherever they are kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlr.analysis.footprint.fake import Fake
from rlr.models.base import DiffusionModel
from rlr.models.placement import OnCPU, OnDemand, TextPlacement
from rlr.models.text import PromptEncoder


@dataclass(frozen=True)
class Texts:
    """The bytes of the text encoders of a model.

    Args:
        device: Those that are a part of the model.
        cpu: Those that stay in the CPU's memory.
        passing: Those that are on the device while prompts are encoded.
        memory: The most prompts whose embeddings are kept on the device.
    """

    device: int = 0
    cpu: int = 0
    passing: int = 0
    memory: int = 0


class Held(TextPlacement):
    """A text encoder at hand, whose embeddings are not written to files.

    Args:
        encoder: The encoder.
        memory: The number of embeddings that are kept.
    """

    def __init__(self, encoder: nn.Module, memory: int) -> None:
        super().__init__(memory)
        self.encoder = encoder

    def place(self, owner: PromptEncoder, load: Callable[[], nn.Module]) -> None:
        """Does nothing: the encoder is at hand."""

    @contextmanager
    def opened(self, owner: PromptEncoder) -> Iterator[Any]:
        yield self.encoder

    def device(self, owner: PromptEncoder) -> torch.device:
        return torch.device("cpu")


def emptied_texts(model: DiffusionModel, fake: Fake) -> Texts:
    """Replaces the text encoders of a model by ones without content, and returns their bytes."""
    device = cpu = passing = memory = 0
    for owner in [module for module in model.modules() if isinstance(module, PromptEncoder)]:
        placement = owner.placement
        encoder = owner.load() if isinstance(placement, OnDemand) else _opened(owner)
        fake.empty(encoder)
        size = size_of(encoder)
        device += size * (not isinstance(placement, OnCPU | OnDemand))
        cpu += size * isinstance(placement, OnCPU)
        passing += size * isinstance(placement, OnDemand)
        memory = max(memory, placement.memory)
        owner.placement = Held(encoder, placement.memory)
    return Texts(device, cpu, passing, memory)


def _opened(owner: PromptEncoder) -> nn.Module:
    with owner.opened() as encoder:
        found: nn.Module = encoder
    return found


def size_of(module: nn.Module, trained: bool = False) -> int:
    """Returns the bytes of a module's frozen weights and buffers, or of its trained weights."""
    tensors = [*module.parameters(), *([] if trained else module.buffers())]
    kept = {id(t): t for t in tensors if getattr(t, "requires_grad", False) == trained}
    return sum(tensor.numel() * tensor.element_size() for tensor in kept.values())
