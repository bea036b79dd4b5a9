"""The rollouts that are collected until an estimator learns from them."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlr.distributed import gather_objects, rank, world_size
from rlr.models.staged import StagedPrompt
from rlr.rollout import Rollout

Sampler = Callable[[Sequence[str], int], Rollout]
"""Samples prompts whose first sample has this number in the run."""


@dataclass(frozen=True)
class Collected:
    """A rollout of this rank, and the number of its batch's first sample in the run."""

    number: int
    rollout: Rollout


class Round:
    """The rollouts of one round.

    A checkpoint does not hold rollouts, which can be gigabytes, but prompts and numbers. The weights do not change within a
    round, so that the same rollouts can be sampled again: by any number of ranks that divides a batch, each its part of it.
    """

    def __init__(self) -> None:
        self.collected: list[Collected] = []

    def __len__(self) -> int:
        return len(self.collected)

    def add(self, number: int, rollout: Rollout) -> None:
        """Adds a rollout whose first sample has this number in the run."""
        self.collected.append(Collected(number, rollout))

    def take(self) -> list[Rollout]:
        """Returns the rollouts and begins a new round."""
        taken, self.collected = [one.rollout for one in self.collected], []
        return taken

    def state(self) -> list[dict[str, Any]]:
        """Returns numbers and prompts of all ranks' rollouts. All ranks call it together."""
        return [
            {"number": one.number, "prompts": gather_objects([plain(prompt) for prompt in one.rollout.prompts])}
            for one in self.collected
        ]

    def restore(self, state: Sequence[dict[str, Any]], sample: Sampler) -> None:
        """Samples the rollouts again.

        Args:
            state: What :meth:`state` returned.
            sample: Samples a rollout.
        """
        self.collected = []
        for one in state:
            prompts = [restored(prompt) for part in one["prompts"] for prompt in part]
            batch, rest = divmod(len(prompts), world_size())
            if rest:
                warnings.warn(
                    f"the checkpoint lies inside a round of {len(prompts)} samples a batch, which {world_size()} processes cannot "
                    "share evenly, so the round begins again; to lose no rollout, resume with a number that divides it",
                    stacklevel=2,
                )
                self.collected = []
                return
            self.add(one["number"], sample(prompts[rank() * batch : (rank() + 1) * batch], one["number"]))


def plain(prompt: str) -> dict[str, Any]:
    """Returns a prompt as plain data, for checkpoints."""
    if isinstance(prompt, StagedPrompt):
        return {"prompt": str(prompt), "stages": list(prompt.stages), "starts": list(prompt.starts)}
    return {"prompt": str(prompt)}


def restored(data: dict[str, Any]) -> str:
    """Returns the prompt of which :func:`plain` made plain data."""
    return StagedPrompt(data["prompt"], data["stages"], data["starts"]) if "stages" in data else data["prompt"]
