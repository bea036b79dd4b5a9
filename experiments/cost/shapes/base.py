"""A base model of a given size with random weights: time and memory of a step do not depend on the weights."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlr.models.base import DiffusionModel
from rlr.rewards.base import Reward
from rlr.samplers import Sampler


@dataclass(frozen=True)
class Shape:
    """What ``make bench SHAPE=…`` times.

    Args:
        pipeline: Returns the networks, as a pipeline of diffusers. Text encoders may have fewer layers than published ones, because
            prompts are encoded before the time is taken.
        model: Returns the base model with a LoRA from the folder of that pipeline and the name of a type.
        sampler: Returns the sampler from the number of steps.
        reward: Returns the reward, which has no weights.
        guidance: The scale of the guidance.
        batch: The number of samples of an update, by default.
        steps: The number of steps of the chain, by default.
        dtype: The type of the frozen weights, by default.
    """

    pipeline: Callable[[], Any]
    model: Callable[[str, str], DiffusionModel]
    sampler: Callable[[int], Sampler]
    reward: Callable[[], Reward]
    guidance: float
    batch: int
    steps: int
    dtype: str

    def write(self, folder: Path, dtype: torch.dtype) -> Path:
        """Writes the pipeline, with weights drawn from seed 0, and returns its folder.

        Args:
            folder: The folder.
            dtype: The type of the weights in the files.
        """
        torch.manual_seed(0)
        self.pipeline().to(dtype).save_pretrained(folder)
        return folder
