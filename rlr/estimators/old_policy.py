r"""The old policy: an exponential average of the trained weights over rounds, from which samples may be drawn."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from rlr.models.base import DiffusionModel
from rlr.models.swapped import swapped


class DecayRamp:
    r"""A decay that rises with the number :math:`k` of updates, :math:`\eta_k = \min(\max(k - k_0, 0) \, s, \eta)`.

    Args:
        slope: The slope :math:`s \geq 0`.
        limit: The largest decay :math:`\eta` in [0, 1).
        start: The number :math:`k_0` of updates with :math:`\eta_k = 0`.
    """

    def __init__(self, slope: float = 0.001, limit: float = 0.5, start: int = 0) -> None:
        if slope < 0 or not 0 <= limit < 1 or start < 0:
            raise ValueError(
                "DecayRamp: expected slope >= 0, limit in [0, 1) and start >= 0, got "
                f"slope={slope}, limit={limit} and start={start}"
            )
        self.slope = slope
        self.limit = limit
        self.start = start

    def at(self, updates: int) -> float:
        r"""Returns :math:`\eta_k` after :math:`k` updates."""
        return min(max(updates - self.start, 0) * self.slope, self.limit)


class OldPolicy:
    r"""Weights :math:`\theta^\mathrm{old} \leftarrow \eta_k \theta^\mathrm{old} + (1 - \eta_k) \theta`, once after every round.

    With :math:`\eta_k = 0` they are the weights at the beginning of the round. A copy is kept only while they may differ from
    the current weights.

    Args:
        decay: The :math:`\eta_k`.
    """

    def __init__(self, decay: DecayRamp) -> None:
        self.decay = decay
        self.updates = 0
        """The number of updates so far."""
        self.weights: dict[str, Tensor] = {}
        """The old weights by name; empty if they are the current ones."""
        self._copied = False

    @property
    def is_current(self) -> bool:
        """Whether the old weights equal the current ones."""
        return not self.weights or self._copied

    def within(self, model: DiffusionModel) -> AbstractContextManager[None]:
        """Returns a context in which the model computes with the old weights."""
        return swapped(model, self.weights) if self.weights else nullcontext()

    def begin(self, model: DiffusionModel) -> None:
        """Begins the updates of a round; the first one has not been made yet."""
        if not self.weights:
            self._copied = True
            self.weights = {name: weight.detach().clone() for name, weight in model.trainable.items()}

    def moved(self) -> None:
        """Counts an update."""
        self._copied = False
        self.updates += 1

    @torch.no_grad()
    def end(self, model: DiffusionModel) -> None:
        """Ends the updates of a round, and follows the current weights."""
        self._copied = False
        decay = self.decay.at(self.updates)
        if not decay:
            self.weights = {}
            return
        for name, weight in model.trainable.items():
            self.weights[name] = torch.lerp(weight.detach(), self.weights[name].to(weight), decay)

    def state_dict(self) -> dict[str, object]:
        """Returns the old weights and the number of updates."""
        return {"weights": dict(self.weights), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""
        self.weights, self.updates = dict(state["weights"]), state["updates"]
