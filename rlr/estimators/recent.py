"""Measurements of the last rollouts, kept separately for each state of the chain."""

from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

from torch import Tensor


class Recent:
    r"""Keeps a tensor of each of the last rollouts for each state :math:`x_j`.

    Args:
        window: The number of rollouts that are kept for each :math:`j`, at least 1.
    """

    def __init__(self, window: int) -> None:
        self._kept: dict[int, deque[Tensor]] = defaultdict(lambda: deque(maxlen=window))

    def add(self, j: int, values: Tensor) -> None:
        r"""Adds what was measured at :math:`x_j`, and drops the oldest beyond the window."""
        self._kept[j].append(values)

    def of(self, j: int) -> list[Tensor]:
        r"""Returns what is kept for :math:`x_j`, the oldest first."""
        return list(self._kept[j]) if j in self._kept else []

    def states(self) -> list[int]:
        r"""Returns the :math:`j` of which something is kept, in increasing order."""
        return sorted(self._kept)

    def state_dict(self) -> dict[int, list[Tensor]]:
        """Returns all that is kept, by state."""
        return {j: list(values) for j, values in self._kept.items()}

    def load_state_dict(self, state: Mapping[int, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""
        self._kept.clear()
        for j, values in state.items():
            self._kept[j].extend(values)
