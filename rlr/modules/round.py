"""The roll-outs that are kept until an estimator goes over them."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlr.chain import Trajectory
from rlr.distributed import gather, gather_texts, rank, world_size
from rlr.estimators.replay import Experience, Recorded

RollOut = Callable[[Sequence[str], int], Trajectory]
"""Rolls out prompts whose first sample has this number in the run."""


@dataclass(frozen=True)
class Kept:
    """A roll-out of this rank, and the number of its batch's first sample in the run."""

    number: int
    experience: Experience


class Round:
    """Roll-outs of one round.

    A checkpoint does not hold them, which would be gigabytes, but what they follow from: prompts, numbers, and rewards. The
    weights do not change within a round, so that the same roll-outs can be made again.
    """

    def __init__(self) -> None:
        self.kept: list[Kept] = []

    def keep(self, number: int, trajectory: Trajectory, rewards: Tensor) -> None:
        """Adds a roll-out."""
        assert isinstance(trajectory, Recorded)
        self.kept.append(Kept(number, Experience(trajectory, rewards)))

    def take(self) -> list[Experience]:
        """Returns the roll-outs and begins a new round."""
        taken, self.kept = [kept.experience for kept in self.kept], []
        return taken

    def state(self) -> list[dict[str, Any]]:
        """Returns, of all ranks, what the roll-outs follow from; of prompts that are more than text, nothing."""
        return [self._origin(kept) for kept in self.kept] if self._plain() else []

    def _plain(self) -> bool:
        """Returns whether all prompts of all ranks are text and nothing more, so that they can be written down."""
        if not self.kept:
            return True
        own = all(type(p) is str for kept in self.kept for p in kept.experience.trajectory.prompts)
        # the ranks must agree on whether to gather
        return bool(gather(self.kept[0].experience.rewards.new_tensor([float(own)])).all())

    @staticmethod
    def _origin(kept: Kept) -> dict[str, Any]:
        return {
            "number": kept.number,
            "prompts": gather_texts(kept.experience.trajectory.prompts),
            "rewards": gather(kept.experience.rewards),
        }

    def restore(self, state: list[dict[str, Any]], expected: int, device: torch.device, roll_out: RollOut) -> None:
        """Makes the roll-outs again.

        Args:
            state: What :meth:`state` returned.
            expected: How many there have been.
            device: Where rewards live.
            roll_out: Makes one.
        """
        self.kept = []
        ranks = {len(one["prompts"]) for one in state}
        if len(state) != expected or ranks - {world_size()}:
            warnings.warn(
                f"the checkpoint lies inside a round, after {expected} of its batches, whose roll-outs cannot be made again "
                "(they are of another accumulate or number of processes, or of staged prompts), so the round goes on "
                "without them; to lose none, resume with the old settings or from a checkpoint between rounds",
                stacklevel=2,
            )
            return
        for one in state:
            trajectory = roll_out(one["prompts"][rank()], one["number"])
            self.keep(one["number"], trajectory, one["rewards"][rank()].to(device))
