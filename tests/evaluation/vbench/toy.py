"""A text-to-video model that needs no time, a config of it, and videos of one's own."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rlr.io.video import write_video
from rlr.models.base import Condition, DiffusionModel, Size
from rlr.rewards.base import Reward
from rlr.schedules import DiscreteSchedule

PROMPTS = {
    "a cat": ("subject_consistency", "motion_smoothness", "dynamic_degree"),
    "A cat": ("aesthetic_quality", "imaging_quality"),
    "an alley, at night": ("background_consistency",),
}
"""Prompts of a small VBench_full_info.json; two differ by case alone, as two of the real file do."""

CONFIG = """
model:
  class_path: VideoAlignment
  init_args:
    model: {class_path: tests.evaluation.vbench.toy.Clips, init_args: {side: 8}}
    sampler: {class_path: DDIM, init_args: {steps: 2, eta: 1.0}}
    reward: tests.evaluation.vbench.toy.Unwilling
    estimator: {class_path: FirstOrder, init_args: {steps: 1}}
    optimization:
      lr: 0.1
data: {class_path: Prompts, init_args: {train: [a cat]}}
trainer: {accelerator: cpu, max_epochs: -1, enable_progress_bar: false, enable_model_summary: false}
"""


class Clips(DiffusionModel):
    """Clips of 5 frames of one color each, which follows from the prompt, the noise and one weight."""

    def __init__(self, side: int = 8, fps: float = 4.0) -> None:
        super().__init__()
        self.side, self.size = side, Size(side, side, 5, fps)
        self.shift = nn.Parameter(torch.zeros(3))

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return (5, 3)

    def schedule(self, size: Size) -> DiscreteSchedule:
        return DiscreteSchedule(DiscreteSchedule.scaled_linear())

    def encode(self, prompts: Sequence[str]) -> Condition:
        numbers = [hashlib.sha256(prompt.encode()).digest()[0] / 256 for prompt in prompts]
        return Condition({"number": torch.tensor(numbers, device=self.device)})

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        return 0.5 * x.tanh() + self.shift + condition.tensors["number"][:, None, None]

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        x = x if frames is None else x[:, list(frames)]
        return x.sigmoid()[..., None, None].expand(*x.shape, self.side, self.side)


class Unwilling(Reward):
    """Scores what it is trained on, and fails on any other prompt."""

    supports_video = True

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        if set(prompts) != {"a cat"}:
            raise RuntimeError("this prompt was not to be scored")
        return samples.flatten(1).mean(1)


def write_info(path: Path, prompts: dict[str, tuple[str, ...]] = PROMPTS) -> Path:
    """Writes a VBench_full_info.json and returns its path."""
    path.write_text(json.dumps([{"prompt_en": p, "dimension": list(names)} for p, names in prompts.items()]))
    return path


def moving(side: int = 32, frames: int = 5, speed: int = 1, seed: int = 0) -> Tensor:
    """Returns a video of a rough texture that moves down, as pixels in [0, 1] with shape (F, 3, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    texture = torch.rand(3, side + frames * speed, side, generator=generator)
    texture = nn.functional.avg_pool2d(texture, 3, 1, 1)
    return torch.stack([texture[:, k * speed : k * speed + side] for k in range(frames)])


def write_clips(folder: Path, prompts: Sequence[str] = tuple(PROMPTS), samples: int = 2, side: int = 32) -> Path:
    """Writes moving clips under VBench's names and returns the folder."""
    for k, prompt in enumerate(prompts):
        for i in range(samples):
            write_video(folder / f"{prompt}-{i}.mp4", moving(side, 5, k + 1, seed=i), 8)
    return folder
