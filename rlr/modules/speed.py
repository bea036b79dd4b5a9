"""How the denoising networks compute, for speed: compiled, or in another layout. Results differ by rounding alone."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from torch import nn

from rlr.models.base import DiffusionModel
from rlr.modules.sharded import Sharded


@dataclass(frozen=True)
class Compile:
    """Compiles each denoising network with ``torch.compile``, in place: names of weights and files stay as they are.

    The first passes compile: one for rollouts, one with a graph, and one for each further size of a batch. A pass whose layers have
    hooks, as of zeroth order with a direction for each sample, is not compiled.

    Args:
        backend: The backend of ``torch.compile``.
        mode: Its mode, such as ``max-autotune``; by default the backend's own.
        dynamic: Whether one compilation serves all sizes; by default what changes once is compiled for all sizes.
    """

    backend: str = "inductor"
    mode: str | None = None
    dynamic: bool | None = None

    def apply(self, network: nn.Module) -> None:
        """Compiles a network at its next pass, unless it is compiled."""
        if network._compiled_call_impl is None:
            network.compile(backend=self.backend, mode=self.mode, dynamic=self.dynamic)


@dataclass(frozen=True)
class Speed:
    """What makes passes of the denoising networks faster on some devices.

    Args:
        compile: Compiles the networks; None does not.
        channels_last: Whether weights of convolutions over images are stored channels last, the layout of kernels of half precision
            on GPUs.
    """

    compile: Compile | None = None
    channels_last: bool = False

    def apply(self, model: DiffusionModel, strategy: Strategy | Any = None) -> None:
        """Prepares the networks of a model.

        Args:
            model: The model.
            strategy: The strategy of the trainer.

        Raises:
            ValueError: If there is something to do, and the model has no network, or a strategy splits it.
        """
        if self.compile is None and not self.channels_last:
            return
        networks = model.networks()
        if not networks:
            raise ValueError(
                f"speed: expected a model of denoising networks, got {type(model).__name__}; leave speed out"
            )
        if isinstance(strategy, Sharded):
            raise ValueError(
                "speed: compile and channels_last expect networks that are whole, and the strategy sharded splits them; leave "
                "speed out, or use the strategy ddp"
            )
        for network in networks.values():
            if self.channels_last:
                _lay_out(network)
            if self.compile is not None:
                self.compile.apply(network)


def _lay_out(network: nn.Module) -> None:
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
