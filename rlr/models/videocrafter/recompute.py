"""Layers that keep only their inputs for the backward pass, which diffusers' three-dimensional U-Net has no switch for."""

from functools import cache
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import nn
from torch.utils.checkpoint import checkpoint

LAYERS = (ResnetBlock2D, TemporalConvLayer, Transformer2DModel, TransformerTemporalModel)
"""What is computed again as a whole."""


class Recomputed:
    """Makes of the class after it one whose forward pass is computed again in the backward pass."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the other class does."""
        forward = super().forward  # type: ignore[misc]
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # there is no dropout whose random numbers would have to be drawn again
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def recompute(network: nn.Module) -> None:
    """Has the layers of a network computed again in the backward pass; names and values stay as they are."""
    for module in network.modules():
        if isinstance(module, LAYERS):
            # its class and not its method: a copy of the network must not call the original's
            kind: Any = type(module)
            module.__class__ = _recomputed(kind)


@cache
def _recomputed(kind: Any) -> Any:
    return type(f"Recomputed{kind.__name__}", (Recomputed, kind), {})
