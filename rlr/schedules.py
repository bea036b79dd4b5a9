r"""Noise schedules :math:`x_\tau = \alpha_\tau x_0 + \sigma_\tau z` and the grids of samplers.

There are two notions of time. :math:`\tau` is the *network's* time (0 … 999 for Stable Diffusion, 0 … 1 for a rectified
flow); :math:`t = T, \dots, 1` counts the sampler's steps. A :class:`Grid` maps one to the other: ``times[t]`` is
the :math:`\tau` at which the network is evaluated in step :math:`t`, and ``alphas[t], sigmas[t]`` are the levels of
:math:`x_t`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    r"""The :math:`T + 1` noise levels of a chain :math:`x_T, \dots, x_0`.

    Args:
        times: The network's times :math:`\tau_t`, of length :math:`T + 1`; ``times[0]`` is not used.
        alphas: The signal levels :math:`\alpha_t`, of length :math:`T + 1`.
        sigmas: The noise levels :math:`\sigma_t`, of length :math:`T + 1`.
        scales: The factors :math:`s_t` contained in the :math:`\alpha_t` if the schedule rescales the signal, of length
            :math:`T + 1`; by default 1.
    """

    times: tuple[float, ...]
    alphas: tuple[float, ...]
    sigmas: tuple[float, ...]
    scales: tuple[float, ...] | None = None

    @property
    def steps(self) -> int:
        r"""The number :math:`T` of steps."""
        return len(self.times) - 1

    def unscaled(self, t: int) -> float:
        r"""Returns :math:`\alpha_t / s_t`."""
        return self.alphas[t] / self.scales[t] if self.scales else self.alphas[t]


class Schedule(ABC):
    r"""A noise schedule :math:`\tau \mapsto (\alpha_\tau, \sigma_\tau)`."""

    @abstractmethod
    def levels(self, time: float) -> tuple[float, float]:
        r"""Returns :math:`(\alpha_\tau, \sigma_\tau)` at the network's time :math:`\tau`."""

    @abstractmethod
    def grid(self, steps: int) -> Grid:
        r"""Returns the grid of a sampler with ``steps`` steps; the grid has :math:`T \geq` ``steps``."""


Spacing = Callable[[int, int, int], Tensor]
r"""Returns the increasing integer times of the steps from (steps, training steps, offset); only ``uniform`` may return more."""


def leading(steps: int, training_steps: int, offset: int) -> Tensor:
    r"""Returns :math:`i \lfloor N / T \rfloor + o` for :math:`i = 0, \dots, T - 1` (Stable Diffusion's default)."""
    return torch.arange(steps) * (training_steps // steps) + offset


def trailing(steps: int, training_steps: int, offset: int) -> Tensor:
    r"""Returns :math:`\mathrm{round}(i N / T) - 1` for :math:`i = 1, \dots, T` (Lin et al., 2023, Table 2)."""
    return (torch.arange(1, steps + 1, dtype=torch.float64) * training_steps / steps).round().long() - 1


def linspace(steps: int, training_steps: int, offset: int) -> Tensor:
    r"""Returns :math:`T` rounded times evenly spaced over :math:`0, \dots, N - 1`."""
    return torch.linspace(0, training_steps - 1, steps, dtype=torch.float64).round().long()


def uniform(steps: int, training_steps: int, offset: int) -> Tensor:
    r"""Returns :math:`i \lfloor N / T \rfloor + o` for all :math:`i` with :math:`i \lfloor N / T \rfloor < N` (VideoCrafter's).

    Where the stride does not divide :math:`N`, there are more than :math:`T` times, as in VideoCrafter's own sampler:
    7, 8 and 31 of 1000 for :math:`T` = 6, 7 and 30.

    Raises:
        ValueError: If the last time exceeds :math:`N - 1`, where VideoCrafter's sampler fails too.
    """
    last = _last(steps, training_steps, offset)
    if last >= training_steps:
        counts = [n for n in range(1, training_steps + 1) if _last(n, training_steps, offset) < training_steps]
        nearest = [*[n for n in counts if n < steps][-1:], *[n for n in counts if n > steps][:1]]
        raise ValueError(
            f"a stride of {training_steps} // {steps} reaches time {last} of a schedule that ends at "
            f"{training_steps - 1}; use {' or '.join(map(str, nearest))} steps"
        )
    return torch.arange(0, training_steps, training_steps // steps) + offset


def distilled(steps: int, training_steps: int, offset: int, origin: int = 200) -> Tensor:
    r"""Returns :math:`k (S - i \lfloor S / T \rfloor) - 1` for :math:`i = T - 1, \dots, 0` with :math:`k = \lfloor N / S \rfloor`.

    These are every :math:`\lfloor S / T \rfloor`-th of :math:`S` = ``origin`` times, from the last one on (T2V-Turbo's).

    Raises:
        ValueError: If there are more than :math:`S` steps.
    """
    if steps > origin:
        raise ValueError(f"{steps} steps do not fit {origin} times of a distilled model; use 1 … {origin} steps")
    return training_steps // origin * (origin - torch.arange(steps).flip(0) * (origin // steps)) - 1


def _last(steps: int, training_steps: int, offset: int) -> int:
    r"""Returns the largest :math:`i \lfloor N / T \rfloor + o` with :math:`i \lfloor N / T \rfloor < N`."""
    stride = training_steps // steps
    return (training_steps - 1) // stride * stride + offset


class DiscreteSchedule(Schedule):
    r"""A variance-preserving schedule given at :math:`N` integer times by :math:`\bar\alpha_\tau = \alpha_\tau^2`.

    Args:
        alphas_cumprod: The :math:`\bar\alpha_0 > \dots > \bar\alpha_{N-1}`, with shape :math:`(N)`.
        spacing: The function that chooses :math:`T` of the :math:`N` times.
        offset: A number that some spacings add to the times (``steps_offset`` in diffusers).
        clean: :math:`\bar\alpha` of the last state :math:`x_0`. By default :math:`\bar\alpha_0`, as in Stable
            Diffusion (``set_alpha_to_one: false``), with which the last step has a small :math:`\sigma`.
    """

    def __init__(
        self, alphas_cumprod: Tensor, spacing: Spacing = leading, offset: int = 1, clean: float | None = None
    ) -> None:
        self.alphas_cumprod = alphas_cumprod.double()
        self.spacing = spacing
        self.offset = offset
        self.clean = self.alphas_cumprod[0].item() if clean is None else clean

    def levels(self, time: float) -> tuple[float, float]:
        abar = self.alphas_cumprod[int(time)].item()
        return abar**0.5 * self.scale(time), (1 - abar) ** 0.5

    def scale(self, time: float) -> float:
        r"""Returns the factor :math:`s_\tau` within :math:`\alpha_\tau = s_\tau \sqrt{\bar\alpha_\tau}`; here 1."""
        return 1.0

    def time_at(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        r"""Returns the times at which the ratio of noise to signal is :math:`\sigma / \alpha`, without the rescaling.

        They are linear in :math:`\arctan(\sigma / \alpha)` between the :math:`N` times; a smaller ratio than the first time's has
        time 0, a larger one than the last time's :math:`N - 1`.

        Args:
            alpha: The levels :math:`\alpha \geq 0` on the CPU, of any shape.
            sigma: The levels :math:`\sigma \geq 0`, of the same shape, not both 0.

        Returns:
            The times in float64, of that shape.
        """
        angles = torch.atan2((1 - self.alphas_cumprod).sqrt(), self.alphas_cumprod.sqrt()).numpy()
        return torch.as_tensor(np.interp(torch.atan2(sigma, alpha).numpy(), angles, np.arange(len(angles))))

    def grid(self, steps: int) -> Grid:
        count = len(self.alphas_cumprod)
        if not 1 <= steps <= count:
            raise ValueError(
                f"a sampler of {steps} steps does not fit a schedule of {count} times; use 1 … {count} steps"
            )
        times = (0, *self.spacing(steps, count, self.offset).clamp(0, count - 1).tolist())
        first = self.clean**0.5 * self.scale(0), (1 - self.clean) ** 0.5
        alphas, sigmas = zip(first, *map(self.levels, times[1:]), strict=True)
        return Grid(times, alphas, sigmas, tuple(map(self.scale, times)))

    @staticmethod
    def scaled_linear(start: float = 0.00085, end: float = 0.012, count: int = 1000) -> Tensor:
        r"""Returns :math:`\bar\alpha` for betas with evenly spaced square roots, as in Stable Diffusion."""
        # float32 betas, as diffusers makes them: the levels must agree with its scheduler's to the last digit
        betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
        return torch.cumprod(1 - betas, 0)


class RescaledSchedule(DiscreteSchedule):
    r"""A discrete schedule whose signal is rescaled: :math:`\alpha_\tau = s_\tau \sqrt{\bar\alpha_\tau}`, as VideoCrafter2's.

    Its noise level depends on :math:`\bar\alpha_\tau` alone, so :math:`\alpha_\tau^2 + \sigma_\tau^2 < 1` where
    :math:`s_\tau < 1`.

    Args:
        alphas_cumprod: The :math:`\bar\alpha_\tau`, with shape :math:`(N)`.
        scales: The :math:`s_\tau`, with shape :math:`(N)` at least.
        spacing: The function that chooses :math:`T` of the :math:`N` times.
        offset: A number that is added to the times.
    """

    def __init__(self, alphas_cumprod: Tensor, scales: Tensor, spacing: Spacing = uniform, offset: int = 1) -> None:
        super().__init__(alphas_cumprod, spacing, offset)
        self.scales = scales.double()

    def scale(self, time: float) -> float:
        return self.scales[int(time)].item()

    @staticmethod
    def ramp(end: float, length: int = 400, count: int = 1000) -> Tensor:
        r"""Returns :math:`s` evenly spaced from 1 to ``end`` over ``length`` times, then constant (as in VideoCrafter)."""
        ramp = torch.linspace(1, end, length, dtype=torch.float64)
        return torch.cat([ramp, torch.full((count - length,), end, dtype=torch.float64)])


class RectifiedFlow(Schedule):
    r"""The straight path :math:`\alpha_\tau = 1 - \tau, \sigma_\tau = \tau` for :math:`\tau \in [0, 1]`.

    Args:
        shift: The time shift :math:`s`: evenly spaced :math:`u` become :math:`\tau = s u / (1 + (s - 1) u)`
            (Esser et al., 2024, Eq. 23); 1 does not change them.

    References:
        | Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow (Liu et al., 2022)
        | https://arxiv.org/abs/2209.03003
    """

    def __init__(self, shift: float = 1.0) -> None:
        self.shift = shift

    def levels(self, time: float) -> tuple[float, float]:
        return 1 - time, time

    def grid(self, steps: int) -> Grid:
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        times = (self.shift * u / (1 + (self.shift - 1) * u)).tolist()
        alphas, sigmas = zip(*map(self.levels, times), strict=True)
        return Grid(tuple(times), alphas, sigmas)


FlowSpacing = Callable[[int, int, float], Tensor]
r"""Unshifted noise levels of :math:`T` steps, decreasing, from (steps, training steps, smallest level), in float64."""


def from_training(steps: int, training_steps: int, smallest: float) -> Tensor:
    r"""Returns :math:`T` levels evenly spaced from 1 down to the smallest of training (Stable Diffusion 3)."""
    times = torch.linspace(training_steps, smallest * training_steps, steps, dtype=torch.float64)
    return times / training_steps


def from_reciprocal(steps: int, training_steps: int, smallest: float) -> Tensor:
    r"""Returns :math:`1, 1 - 1/T, \dots, 1/T` in float32 (the pipelines of FLUX and Qwen-Image)."""
    return torch.linspace(1, 1 / steps, steps, dtype=torch.float64).float().double()


def unipc(steps: int, training_steps: int, smallest: float) -> Tensor:
    r"""Returns the first :math:`T` of :math:`T + 1` levels evenly spaced from 1 down to :math:`1 / N` (UniPC, for Wan)."""
    return torch.linspace(1, 1 / training_steps, steps + 1, dtype=torch.float64)[:-1]


class FlowMatch(Schedule):
    r"""A rectified flow on the grid of diffusers' ``FlowMatchEulerDiscreteScheduler``, :math:`\sigma_T = 1, \dots, \sigma_0 = 0`.

    With :math:`s` the static shift, or :math:`s = e^\mu` the dynamic one that depends on the image's size,

    .. math:: \sigma = \frac{s u}{1 + (s - 1) u}

    of unshifted levels :math:`u`. The smallest level of training is itself a shifted one where the shift is static, so
    that the last step begins at about :math:`s^2 / N` and not at :math:`1 / T`. Levels are rounded to float32.

    References:
        | Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), Section 5.3.2
        | https://arxiv.org/abs/2403.03206

    Args:
        shift: The static shift :math:`s > 0`; unused where ``mu`` is given.
        mu: The exponent :math:`\mu` of the dynamic shift, see :func:`dynamic_shift`, or a function that returns it for a number
            of steps, see :func:`empirical_shift`; None for a static shift.
        spacing: The unshifted levels.
        terminal: The smallest nonzero level to which the shifted levels are stretched; by default they are not.
        training_steps: The number :math:`N` of training times.
    """

    def __init__(
        self,
        shift: float = 1.0,
        mu: float | Callable[[int], float] | None = None,
        spacing: FlowSpacing = from_training,
        terminal: float | None = None,
        training_steps: int = 1000,
    ) -> None:
        if not shift > 0:
            raise ValueError(f"FlowMatch: expected a shift above 0, got {shift}; 1 leaves the times as they are")
        self.shift = shift
        self.mu = mu
        self.spacing = spacing
        self.terminal = terminal
        self.training_steps = training_steps
        first = torch.tensor(1 / training_steps, dtype=torch.float32)
        # a static shift is in the training times already, and is applied to them once more
        self.smallest = (shift * first / (1 + (shift - 1) * first) if mu is None else first).item()

    def levels(self, time: float) -> tuple[float, float]:
        return 1 - time, time

    def grid(self, steps: int) -> Grid:
        if not 1 <= steps <= self.training_steps:
            raise ValueError(
                f"a sampler of {steps} steps does not fit a schedule of {self.training_steps} times; use 1 … "
                f"{self.training_steps} steps"
            )
        u, s = self.spacing(steps, self.training_steps, self.smallest), self._factor(steps)
        sigmas = s * u / (1 + (s - 1) * u)
        if self.terminal is not None:
            sigmas = 1 - (1 - sigmas) * (1 - self.terminal) / (1 - sigmas[-1])
        times = (0.0, *sigmas.float().flip(0).tolist())
        alphas, levels = zip(*map(self.levels, times), strict=True)
        return Grid(times, alphas, levels)

    def _factor(self, steps: int) -> float:
        r"""Returns the shift :math:`s` of a grid of so many steps."""
        mu = self.mu(steps) if callable(self.mu) else self.mu
        return self.shift if mu is None else math.exp(mu)


def dynamic_shift(
    tokens: int, base_tokens: int = 256, max_tokens: int = 4096, base_shift: float = 0.5, max_shift: float = 1.15
) -> float:
    r"""Returns :math:`\mu` for an image of so many tokens: linear from ``base_shift`` to ``max_shift``."""
    slope = (max_shift - base_shift) / (max_tokens - base_tokens)
    return tokens * slope + base_shift - slope * base_tokens


def empirical_shift(tokens: int, steps: int) -> float:
    r"""Returns :math:`\mu` of FLUX.2 for an image of so many tokens and a grid of so many steps.

    It is linear in the steps between :math:`\mu_{10}` and :math:`\mu_{200}`, which are linear in the tokens; above 4300 tokens it
    is :math:`\mu_{200}`.

    References:
        | compute_empirical_mu in src/flux2/sampling.py of https://github.com/black-forest-labs/flux2
    """
    mu_10 = 8.73809524e-05 * tokens + 1.89833333
    mu_200 = 0.00016927 * tokens + 0.45666666
    return mu_200 if tokens > 4300 else mu_200 + (mu_10 - mu_200) * (200 - steps) / 190
