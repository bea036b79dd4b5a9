r"""A diffusion model of points in :math:`R^8`, small enough to draw thousands of gradients from.

Its data is a mixture of four normal distributions, its network a multilayer perceptron that is trained here, in seconds.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlr.models.base import Condition, DiffusionModel, Size
from rlr.schedules import DiscreteSchedule, trailing

DIMENSION, MODES, SPREAD = 8, 4, 0.3


def means() -> Tensor:
    r"""Returns the means of the mixture, with shape :math:`(4, 8)`."""
    return torch.randn(MODES, DIMENSION, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def points(count: int, generator: torch.Generator) -> Tensor:
    r"""Draws from the mixture, with shape :math:`(n, 8)`."""
    which = torch.randint(MODES, (count,), generator=generator)
    return means()[which] + SPREAD * torch.randn(count, DIMENSION, generator=generator, dtype=torch.float64)


class Points(DiffusionModel):
    r"""Predicts :math:`\hat x_0` of points :math:`x_\tau` in float64; all of its weights are trained.

    Args:
        width: The width of the two hidden layers.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.size = Size(1, 1)
        self.noise_schedule = DiscreteSchedule(DiscreteSchedule.scaled_linear(), trailing)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            layers = (nn.Linear(DIMENSION + 2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
            self.network = nn.Sequential(*layers, nn.Linear(width, DIMENSION)).double()

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return (DIMENSION,)

    def schedule(self, size: Size) -> DiscreteSchedule:
        return self.noise_schedule

    def encode(self, prompts: Sequence[str]) -> Condition:
        return Condition({"none": torch.zeros(len(prompts), 1, dtype=torch.float64)})

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        return self.predict(x, torch.full_like(x[:, :1], time))

    def predict(self, x: Tensor, times: Tensor) -> Tensor:
        r"""Returns :math:`\hat x_0`, with shape :math:`(B, 8)`, for times of shape :math:`(B, 1)`."""
        angle = times / 1000 * torch.pi
        return self.network(torch.cat([x, angle.sin(), angle.cos()], 1))

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        return x


def trained(steps: int = 3000, batch: int = 256) -> Points:
    """Returns the model after so many steps of denoising regression; the same in every call."""
    model, generator = Points(), torch.Generator().manual_seed(2)
    alphas = model.noise_schedule.alphas_cumprod.sqrt()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(steps):
        clean = points(batch, generator)
        times = torch.randint(len(alphas), (batch, 1), generator=generator)
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        noisy = alphas[times] * clean + (1 - alphas[times] ** 2).sqrt() * noise
        loss = (model.predict(noisy, times.double()) - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def reward(x: Tensor) -> Tensor:
    r"""Returns :math:`R(x) = \sin 2 x_1 - |x - c|^2 / 8`, with shape :math:`(B)`; :math:`c` lies off the data."""
    return (2 * x[:, 0]).sin() - (x - 0.5).square().mean(1)
