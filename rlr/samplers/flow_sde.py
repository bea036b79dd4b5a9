"""The stochastic form of a rectified flow, as in Flow-GRPO."""

from torch import Tensor

from rlr.gaussian import Gaussian
from rlr.samplers.base import Sampler, check_flow
from rlr.schedules import Grid


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
        check_flow(grid, t, "FlowSDE")
        velocity = (x - denoised) / sigma
        drift = velocity + self._diffusion(t, grid) ** 2 / (2 * sigma) * (x + (1 - sigma) * velocity)
        return Gaussian(x - drift * delta, self.std(t, grid))
