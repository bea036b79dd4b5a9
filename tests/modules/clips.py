"""A toy model of videos, and what aligns it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlr.models.base import Condition, DiffusionModel, Size
from rlr.rewards import FrameReward
from rlr.schedules import DiscreteSchedule
from tests.modules.toy import WORDS, Level, Replay, arguments

FRAMES, SIDE = 4, 16


class ClipModel(DiffusionModel):
    """Predicts x̂₀ = tanh(W x + b + c) of videos, latents of 2 × F × 2 × 2, where c is the prompt's number over 8.

    A frame of the latent decodes to an image of 16 × 16 alone; ``decoded`` counts the frames.
    """

    def __init__(self, dtype: str = "float32") -> None:
        super().__init__()
        self.size = Size(SIDE, SIDE, FRAMES, 8.0)
        generator = torch.Generator().manual_seed(0)
        size, kind = 8 * FRAMES, getattr(torch, dtype)
        weight = 0.1 * torch.randn(size, size, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight.to(kind))
        self.bias = nn.Parameter(torch.zeros(size, dtype=kind))
        mix = torch.randn(3, 2, generator=generator, dtype=torch.float64)
        self.mix = nn.Parameter(mix.to(kind), requires_grad=False)
        self.decoded = 0

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return (2, FRAMES, 2, 2)

    def schedule(self, size: Size) -> DiscreteSchedule:
        return DiscreteSchedule(DiscreteSchedule.scaled_linear())

    def encode(self, prompts: Sequence[str]) -> Condition:
        numbers = [WORDS.index(prompt) / 8 for prompt in prompts]
        return Condition({"c": torch.tensor(numbers, dtype=self.weight.dtype)})

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        out = nn.functional.linear(x.flatten(1).to(self.weight.dtype), self.weight, self.bias)
        return torch.tanh(out + condition.tensors["c"][:, None]).view_as(x).to(x.dtype)

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        self.decoded += x.shape[2]
        pixels = torch.einsum("kc,bcfhw->bfkhw", self.mix.to(x.dtype), x).sigmoid()
        # a frame is known by how bright it is
        dimmed = pixels * torch.linspace(0.5, 1, FRAMES, dtype=x.dtype)[: x.shape[2], None, None, None]
        pixels = dimmed.repeat_interleave(SIDE // 2, 3).repeat_interleave(SIDE // 2, 4)
        return pixels if frames is None else pixels[:, list(frames)]


class Sparing(ClipModel):
    """The same, decoding only what it is asked for."""

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        decoded = self.decoded + (x.shape[2] if frames is None else len(frames))
        pixels = super().decode(x, frames)
        self.decoded = decoded
        return pixels


def align_clips(**changes: object):
    """Returns a VideoAlignment of the toys, with some arguments changed."""
    from rlr.modules import VideoAlignment
    from rlr.samplers import DDIM

    settings = {
        "model": Sparing(),
        "sampler": DDIM(4, eta=1.0),
        "reward": FrameReward(Level()),
        "estimator": Replay(),
        "lr": 0.05,
        **changes,
    }
    return VideoAlignment(**arguments(settings))
