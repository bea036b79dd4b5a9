r"""Samplers: the transition :math:`p(x_{t-1} \mid x_t)` from one denoised estimate.

Write :math:`\hat x_0` for the estimate of :math:`E[x_0 \mid x_t]` and :math:`\hat z = (x_t - \alpha_t \hat x_0) /
\sigma_t` for the implied noise. Every sampler returns a :class:`~rlr.gaussian.Gaussian`.
"""

import math
from abc import ABC, abstractmethod

from torch import Tensor

from rlr.gaussian import Gaussian
from rlr.schedules import Grid


class Sampler(ABC):
    r"""A discretized reverse process of :math:`T` steps.

    Args:
        steps: The number :math:`T \geq 1` of steps.
    """

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"{type(self).__name__}.steps: expected at least 1, got {steps}")
        self.steps = steps

    @abstractmethod
    def std(self, t: int, grid: Grid) -> float:
        r"""Returns the standard deviation of :math:`p(x_{t-1} \mid x_t)`, for :math:`t = 1, \dots, T`."""

    @abstractmethod
    def transition(self, denoised: Tensor, x: Tensor, t: int, grid: Grid) -> Gaussian:
        r"""Returns :math:`p(x_{t-1} \mid x_t)`.

        Args:
            denoised: The estimate :math:`\hat x_0`, with shape :math:`(B, *)`.
            x: The state :math:`x_t`, with shape :math:`(B, *)`.
            t: The step, :math:`1 \leq t \leq T`.
            grid: The noise levels of the chain.
        """


class DDIM(Sampler):
    r"""Denoising diffusion implicit models, with the paper's :math:`\eta`.

    .. math:: \sigma = \eta \, \sigma_{t-1}
        \sqrt{1 - \Bigl(\frac{\alpha_t \sigma_{t-1}}{\alpha_{t-1} \sigma_t}\Bigr)^2},
        \qquad \mu = \alpha_{t-1} \hat x_0 + \sqrt{\sigma_{t-1}^2 - \sigma^2} \, \hat z

    :math:`\eta` multiplies the standard deviation, as in the paper (Eq. 16) and in diffusers. If the schedule rescales
    the signal, :math:`\sigma` is computed without the rescaling (as in VideoCrafter), and the mean with it; any :math:`\sigma
    \leq \sigma_{t-1}` preserves the marginals.

    References:
        | Denoising Diffusion Implicit Models (Song et al., 2021)
        | https://arxiv.org/abs/2010.02502

    Args:
        steps: The number :math:`T` of steps.
        eta: The factor :math:`\eta \in [0, 1]`: 0 is deterministic, 1 has the variance of ancestral sampling.
    """

    def __init__(self, steps: int = 50, eta: float = 1.0) -> None:
        super().__init__(steps)
        if not 0 <= eta <= 1:
            raise ValueError(f"DDIM.eta: expected a number in [0, 1], got {eta}")
        self.eta = eta

    def std(self, t: int, grid: Grid) -> float:
        alpha_t, sigma_t = grid.unscaled(t), grid.sigmas[t]
        alpha_s, sigma_s = grid.unscaled(t - 1), grid.sigmas[t - 1]
        return self.eta * sigma_s * max(1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2, 0) ** 0.5

    def transition(self, denoised: Tensor, x: Tensor, t: int, grid: Grid) -> Gaussian:
        return preserve(denoised, x, t, grid, self.std(t, grid))


class Ancestral(Sampler):
    r"""Ancestral sampling (DDPM) from the posterior :math:`q(x_{t-1} \mid x_t, x_0 = \hat x_0)`.

    With :math:`\alpha = \alpha_t / \alpha_{t-1}` and :math:`\beta = \sigma_t^2 - \alpha^2 \sigma_{t-1}^2`, Bayes' rule
    gives

    .. math:: \mu = \frac{\alpha \sigma_{t-1}^2 x_t + \alpha_{t-1} \beta \hat x_0}{\sigma_t^2},
        \qquad \sigma^2 = \tilde\beta^{1 - v} \beta^v, \quad \tilde\beta = \frac{\beta \, \sigma_{t-1}^2}{\sigma_t^2}

    and :math:`v = 0` is DDIM with :math:`\eta = 1`, unless the schedule rescales the signal.

    References:
        | Denoising Diffusion Probabilistic Models (Ho et al., 2020), Eq. 6–7
        | https://arxiv.org/abs/2006.11239
        | Improved Denoising Diffusion Probabilistic Models (Nichol & Dhariwal, 2021), Eq. 15
        | https://arxiv.org/abs/2102.09672

    Args:
        steps: The number :math:`T` of steps.
        variance: The interpolation :math:`v \in [0, 1]` between the smallest and the largest variance.
    """

    def __init__(self, steps: int = 50, variance: float = 0.0) -> None:
        super().__init__(steps)
        if not 0 <= variance <= 1:
            raise ValueError(f"Ancestral.variance: expected a number in [0, 1], got {variance}")
        self.variance = variance

    def _beta(self, t: int, grid: Grid) -> float:
        return grid.sigmas[t] ** 2 - (grid.alphas[t] / grid.alphas[t - 1] * grid.sigmas[t - 1]) ** 2

    def std(self, t: int, grid: Grid) -> float:
        beta = self._beta(t, grid)
        beta_tilde = beta * grid.sigmas[t - 1] ** 2 / grid.sigmas[t] ** 2
        return (beta_tilde ** (1 - self.variance) * beta**self.variance) ** 0.5

    def transition(self, denoised: Tensor, x: Tensor, t: int, grid: Grid) -> Gaussian:
        alpha, beta = grid.alphas[t] / grid.alphas[t - 1], self._beta(t, grid)
        mean = (alpha * grid.sigmas[t - 1] ** 2 * x + grid.alphas[t - 1] * beta * denoised) / grid.sigmas[t] ** 2
        return Gaussian(mean, self.std(t, grid))


class FlowSDE(Sampler):
    r"""Euler–Maruyama steps of the SDE that shares its marginals with a rectified flow's ODE.

    With :math:`\sigma = \sigma_t`, :math:`\Delta = \sigma_t - \sigma_{t-1}`, velocity
    :math:`v = (x_t - \hat x_0) / \sigma` and :math:`g = a \sqrt{\sigma / (1 - \sigma)}`,

    .. math:: \mu = x_t - \Bigl[v + \frac{g^2}{2 \sigma} \bigl(x_t + (1 - \sigma) v\bigr)\Bigr] \Delta,
        \qquad \mathrm{std} = g \sqrt{\Delta}

    At :math:`\sigma = 1`, where :math:`g` diverges, :math:`\sigma_{T-1}` replaces :math:`\sigma` in the denominator. The
    variance after this first step is too large by :math:`a^4 / 4` for any number of steps (0.06 of 1 at :math:`a = 0.7`); later
    steps reduce the error. Below :math:`\sigma = 1` the marginals are preserved to first order in :math:`1 / T`.

    References:
        | Flow-GRPO: Training Flow Matching Models via Online RL (Liu et al., 2025), Eq. 9
        | https://arxiv.org/abs/2505.05470

    Args:
        steps: The number :math:`T` of steps.
        noise_level: The noise level :math:`a \geq 0`; 0 is the deterministic Euler method.
    """

    def __init__(self, steps: int = 20, noise_level: float = 0.7) -> None:
        super().__init__(steps)
        if noise_level < 0:
            raise ValueError(f"FlowSDE.noise_level: expected at least 0, got {noise_level}")
        self.noise_level = noise_level

    def _diffusion(self, t: int, grid: Grid) -> float:
        sigma = grid.sigmas[t]
        # a chain of one step has no smaller level to use in the denominator: use one half
        bounded = sigma if sigma < 1 else (grid.sigmas[t - 1] or 0.5)
        return self.noise_level * (sigma / (1 - bounded)) ** 0.5

    def std(self, t: int, grid: Grid) -> float:
        return self._diffusion(t, grid) * (grid.sigmas[t] - grid.sigmas[t - 1]) ** 0.5

    def transition(self, denoised: Tensor, x: Tensor, t: int, grid: Grid) -> Gaussian:
        sigma, delta = grid.sigmas[t], grid.sigmas[t] - grid.sigmas[t - 1]
        if abs(grid.alphas[t] + sigma - 1) > 1e-9:
            raise ValueError("FlowSDE: expected a rectified flow (α + σ = 1), got another schedule; use DDIM")
        velocity = (x - denoised) / sigma
        drift = velocity + self._diffusion(t, grid) ** 2 / (2 * sigma) * (x + (1 - sigma) * velocity)
        return Gaussian(x - drift * delta, self.std(t, grid))


class CPS(Sampler):
    r"""Coefficients-preserving sampling: DDIM with another standard deviation, as in later Flow-GRPO code.

    .. math:: \sigma = \sigma_{t-1} \sin(\eta \pi / 2), \qquad
        \mu = \alpha_{t-1} \hat x_0 + \sqrt{\sigma_{t-1}^2 - \sigma^2} \, \hat z

    The noise level of :math:`x_{t-1}` is that of the schedule, so that the marginals are preserved for every schedule.

    References:
        | Coefficients-Preserving Sampling for Reinforcement Learning with Flow Matching (Wang & Yu, 2025)
        | https://arxiv.org/abs/2509.05952

    Args:
        steps: The number :math:`T` of steps.
        noise_level: The level :math:`\eta \in [0, 1]`: 0 is deterministic, 1 replaces the whole noise.
    """

    def __init__(self, steps: int = 10, noise_level: float = 0.8) -> None:
        super().__init__(steps)
        if not 0 <= noise_level <= 1:
            raise ValueError(f"CPS.noise_level: expected a number in [0, 1], got {noise_level}")
        self.noise_level = noise_level

    def std(self, t: int, grid: Grid) -> float:
        return grid.sigmas[t - 1] * math.sin(self.noise_level * math.pi / 2)

    def transition(self, denoised: Tensor, x: Tensor, t: int, grid: Grid) -> Gaussian:
        return preserve(denoised, x, t, grid, self.std(t, grid))


class Windowed(Sampler):
    r"""Another sampler in some steps, and the deterministic DDIM step in all others.

    Args:
        sampler: The other sampler.
        first: The first step :math:`T \geq t \geq 1` of the window; steps count down.
        last: The last one, at most ``first``.
    """

    def __init__(self, sampler: Sampler, first: int, last: int) -> None:
        super().__init__(sampler.steps)
        if not first >= last >= 1:
            raise ValueError(f"Windowed: expected first >= last >= 1, since steps count down, got {first} and {last}")
        self.sampler = sampler
        self.first = first
        self.last = last

    def std(self, t: int, grid: Grid) -> float:
        return self.sampler.std(t, grid) if self._inside(t) else 0.0

    def transition(self, denoised: Tensor, x: Tensor, t: int, grid: Grid) -> Gaussian:
        return self.sampler.transition(denoised, x, t, grid) if self._inside(t) else preserve(denoised, x, t, grid, 0.0)

    def _inside(self, t: int) -> bool:
        return self.first >= t >= self.last


def preserve(denoised: Tensor, x: Tensor, t: int, grid: Grid, std: float) -> Gaussian:
    r"""Returns :math:`\mathcal{N}(\alpha_{t-1} \hat x_0 + \sqrt{\sigma_{t-1}^2 - \sigma^2} \, \hat z, \sigma^2 I)`."""
    noise = (x - grid.alphas[t] * denoised) / grid.sigmas[t]
    direction = max(grid.sigmas[t - 1] ** 2 - std**2, 0) ** 0.5
    return Gaussian(grid.alphas[t - 1] * denoised + direction * noise, std)
