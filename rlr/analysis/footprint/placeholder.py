"""A model and a reward that take the memory of real ones, and compute nothing.

An estimator works with them as with the real ones: which steps it replays, what it keeps from one term to the next, and how many
graphs are alive at once. What a pass takes is allocated on torch's device ``meta``, which has no memory. Latents are real.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from rlr.analysis.footprint.passes import Pass, Passes, Waiting
from rlr.analysis.measure import Storages
from rlr.analysis.offload_stats import Bytes
from rlr.estimators.base import Term
from rlr.models.base import Condition, DiffusionModel, Size
from rlr.rewards.base import Scores
from rlr.rewards.slopes import scored
from rlr.schedules import Schedule
from rlr.scoring import AtOnce, Pending

GROUPS, MOST = 16, 2**22
"""How many weights stand for those of a model, and the most numbers in all of them."""


class Work:
    """The passes of a function.

    Args:
        kept: Those whose graphs stay on the device.
        offloaded: Returns those whose graphs wait in the CPU's memory, as far as they can.
    """

    def __init__(self, kept: Passes, offloaded: Callable[[], Passes]) -> None:
        self.kept = kept
        self._offloaded = offloaded

    @cached_property
    def offloaded(self) -> Passes:
        """The passes whose graphs wait in the CPU's memory, counted when they are first asked for."""
        return self._offloaded()

    @property
    def on_device(self) -> "Work":
        """The same, of which nothing ever waits."""
        return Work(self.kept, lambda: self.kept)


class Allocator:
    """Allocates what passes take.

    Args:
        offload: Whether the graphs of terms wait in the CPU's memory.
    """

    def __init__(self, offload: bool = False) -> None:
        self.offload = offload
        self.waiting = Bytes()
        self._building = False

    def next(self, terms: Iterator[Term]) -> Term | None:
        """Returns the next term, whose graph is built on the way; None after the last one."""
        self._building = True
        try:
            return next(terms, None)
        finally:
            self._building = False

    def run(self, work: Work, x: Tensor, weights: Sequence[Tensor] = ()) -> Tensor:
        r"""Returns a copy of :math:`x` with a graph in it and in the weights, whose memory is that of the real pass.

        Args:
            work: The passes of the function.
            x: The input, with shape :math:`(B, *)`.
            weights: The trained weights that the function depends on.
        """
        found = work.offloaded if self.offload and self._building else work.kept
        graph = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *weights))
        chosen = (found.inputs if x.requires_grad else found.weights) if graph else found.plain
        out: Tensor = _Allocated.apply(chosen, len(x) / found.rows, self.waiting, x, *weights)
        return out


class _Allocated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: Pass, share: float, waiting: Bytes, x: Tensor, *weights: Tensor) -> Tensor:
        kept = filler(share * work.kept)
        filler(share * (work.forward - work.kept))
        ctx.save_for_backward(kept, *weights)
        ctx.further = share * work.backward
        ctx.waits = Waiting([round(share * work.waiting)], torch.uint8, waiting)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        _, *weights = ctx.saved_tensors
        filler(ctx.further)
        to_input, *to_weights = ctx.needs_input_grad[3:]
        gradients = (torch.zeros_like(w) if to else None for w, to in zip(weights, to_weights, strict=True))
        return None, None, None, slope if to_input else None, *gradients


def filler(size: float) -> Tensor:
    """Returns a tensor of so many bytes that takes none; one that is not kept marks a peak."""
    return torch.empty(max(0, round(size)), dtype=torch.uint8, device="meta")


class PlaceholderModel(DiffusionModel):
    r"""Takes the memory of a model.

    Its trained weights are few and small. They are float64, and each of their numbers stands for :attr:`bytes_per_number` bytes
    of the real ones.

    Args:
        model: The model, whose schedule and sizes count.
        work: The passes of its denoiser.
        condition: The condition of :math:`B` prompts.
        allocator: Allocates the passes.
    """

    def __init__(self, model: DiffusionModel, work: Work, condition: Condition, allocator: Allocator) -> None:
        super().__init__()
        self.size = model.size
        self.work, self.allocator = work, allocator
        # in a list, the module does not see it
        self._real = [model]
        self._condition = {name: (tensor.shape[1:], tensor.dtype) for name, tensor in condition.tensors.items()}
        self._add_weights(model)

    def _add_weights(self, model: DiffusionModel) -> None:
        real = model.trainable
        numbers = sum(weight.numel() for weight in real.values())
        total = sum(weight.numel() * weight.element_size() for weight in real.values())
        width = max(1, ceil(min(numbers, MOST) / GROUPS))
        self.bytes_per_number = total / (GROUPS * width)
        # which perturbations fit depends on whether all weights belong to linear layers
        linear = all(isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Linear) for name in real)
        made = [nn.Parameter(torch.zeros(width, 1, dtype=torch.float64)) for _ in range(GROUPS if real else 0)]
        self.layers = nn.ModuleList(
            nn.Linear(1, width, bias=False, device="meta") if linear else nn.Module() for _ in made
        )
        for layer, weight in zip(self.layers, made, strict=True):
            layer.weight = weight

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def reference(self) -> AbstractContextManager[None]:
        return nullcontext() if self._real[0].has_reference else super().reference()

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return self._real[0].latent_shape(size)

    def schedule(self, size: Size) -> Schedule:
        return self._real[0].schedule(size)

    def skip(self, time: float) -> float:
        return self._real[0].skip(time)

    def encode(self, prompts: Sequence[str]) -> Condition:
        made = {
            name: torch.zeros(len(prompts), *shape, dtype=dtype) for name, (shape, dtype) in self._condition.items()
        }
        return Condition(made)

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        return self.allocator.run(self.work, x, list(self.trainable.values()))

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        frame = (3, self.size.height, self.size.width)
        count = self.size.frames if frames is None else len(frames)
        return x.new_full((len(x), *frame) if count is None else (len(x), count, *frame), 0.5)


@dataclass(frozen=True)
class PlaceholderObjective:
    """Takes the memory of decoding latents and scoring the pixels.

    Args:
        work: The passes.
        differentiable: Whether the reward has a gradient.
        allocator: Allocates the passes.
        micro_batch: The most samples at once; None for all.
    """

    work: Work
    differentiable: bool
    allocator: Allocator
    micro_batch: int | None = None

    def __call__(self, x: Tensor, prompts: Sequence[str]) -> Scores:
        """Returns the means of latents as their scores."""
        return scored(self._begin, x if self.differentiable else x.detach(), prompts, self.micro_batch)()

    def _begin(self, x: Tensor, prompts: Sequence[str]) -> Pending[Scores]:
        return AtOnce().begin(lambda: Scores(self.allocator.run(self.work, x).flatten(1).mean(1)))


class RealBytes(Storages):
    """Counts the bytes that tensors of placeholders stand for.

    Args:
        model: The model, whose weights and all that is made of them are float64, and nothing else is.
    """

    def __init__(self, model: PlaceholderModel) -> None:
        super().__init__()
        self.model = model

    def size(self, tensor: Tensor) -> int:
        found = super().size(tensor)
        return round(found / 8 * self.model.bytes_per_number) if tensor.dtype == torch.float64 else found
