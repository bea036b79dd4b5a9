"""Reward and exact check against updates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlr.evaluation.plots import Line, Plot
from rlr.evaluation.scales import Bounded, Level
from rlr.evaluation.statistics import Comparison


@dataclass(frozen=True)
class Curves:
    r"""Measurements during alignment.

    Args:
        updates: The updates after which held-out prompts were sampled; 0 is the base model.
        held_out: Measurements on them by name, one comparison with the base model an update.
        prompts: The number of those prompts, each sampled once.
        training: The mean reward of the rollouts of every update.
    """

    updates: Sequence[int]
    held_out: Mapping[str, Sequence[Comparison]]
    prompts: int
    training: Sequence[float]

    @property
    def plots(self) -> list[Plot]:
        """The reward, and the share of prompts of which the exact check finds every claim true."""
        training = Line("training prompts, each batch", range(1, len(self.training) + 1), self.training, faint=True)
        return [
            Plot("Reward", [training, self._line("reward")], Level()),
            # all shares there are: an axis that follows the curve shows the noise of few prompts as movement
            Plot("Exact check: all correct", [self._line("all")], Bounded()),
        ]

    def _line(self, name: str) -> Line:
        """Returns means on held-out prompts, and around them the interval of the paired difference from the base model."""
        found = self.held_out[name]
        low, high = ([value.base + end for value, end in zip(found, ends, strict=True)] for ends in _ends(found))
        means = [value.aligned for value in found]
        return Line(f"{self.prompts} held-out prompts", self.updates, means, low, high, color=1, points=True)


def _ends(found: Sequence[Comparison]) -> tuple[list[float], list[float]]:
    return [value.low for value in found], [value.high for value in found]
