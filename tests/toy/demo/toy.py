"""Models that draw 32 × 32 images and videos for captions of the built-in world without having learned anything."""

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlr.models.base import Condition, DiffusionModel, Size
from rlr.rewards.base import Reward
from rlr.schedules import DiscreteSchedule


class Smear(DiffusionModel):
    """Predicts x̂₀ = tanh(conv(x) + b + c), where c is a color that follows from the prompt's letters."""

    def __init__(self) -> None:
        super().__init__()
        self.size = Size(32, 32)
        weight = 0.2 * torch.randn(3, 3, 3, 3, generator=torch.Generator().manual_seed(0))
        self.register_buffer("kernel", weight)
        self.bias = nn.Parameter(torch.zeros(3, 1, 1))

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return (3, 32, 32)

    def schedule(self, size: Size) -> DiscreteSchedule:
        return DiscreteSchedule(DiscreteSchedule.scaled_linear())

    def encode(self, prompts: Sequence[str]) -> Condition:
        seeds = [zlib.crc32(prompt.encode()) for prompt in prompts]
        colors = [torch.randn(3, 1, 1, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return Condition({"color": torch.stack(colors)})

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        drawn = nn.functional.conv2d(x, self.kernel, padding=1)
        return torch.tanh(drawn + self.bias + condition.tensors["color"])

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        return x.add(1).div(2).clamp(0, 1)


class SmearClips(Smear):
    """The same in every frame of a video of five, on latents whose pixels are squares of four."""

    def __init__(self) -> None:
        super().__init__()
        self.size = Size(32, 32, 5, 8.0)

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return (3, 5, 8, 8)

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        frames = x.transpose(1, 2).flatten(0, 1)
        colors = condition.map(lambda c: c.repeat_interleave(5, 0))
        return super().denoise(frames, time, colors).unflatten(0, (len(x), 5)).transpose(1, 2)

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        x = x if frames is None else x[:, :, list(frames)]
        return super().decode(x.transpose(1, 2)).repeat_interleave(4, -1).repeat_interleave(4, -2)


class Light(Reward):
    """The mean of all pixels."""

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples.flatten(1).mean(1)


def evaluate(world, chain, reward, prompts, samples=2, seed=0, batch=60):
    """The values of a demo by name, and all pixels with shape (N, S, *)."""
    from rlr.evaluation import Evaluator, SampleSet
    from rlr.toy.demo.evaluation import metrics

    chosen = SampleSet(prompts, samples, seed, batch)
    found = Evaluator(chosen, metrics(world, reward, samples), range(len(chosen))).evaluate(chain)
    return found.values, torch.stack([found.pixels[row] for row in range(len(chosen))]).unflatten(0, (-1, samples))
