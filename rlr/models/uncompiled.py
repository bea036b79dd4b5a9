"""Compiled networks that compute as they are written, for a while."""

from contextlib import AbstractContextManager, nullcontext

import torch

from rlr.models.base import DiffusionModel


def uncompiled(model: DiffusionModel) -> AbstractContextManager[object]:
    """Returns a context within which no network of a model is compiled: compiled code does not see hooks that are added later."""
    compiled = any(module._compiled_call_impl is not None for module in model.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
