"""Multistep sampling of consistency models."""

from torch import Tensor

from rlr.gaussian import Gaussian
from rlr.samplers.base import Sampler
from rlr.schedules import Grid


class Consistency(Sampler):
    r"""Multistep sampling of a latent consistency model: to a clean sample, and back to noise.

    With the network's time :math:`\tau` of step :math:`t`, :math:`u = a \tau` and :math:`d` = ``sigma_data``,

    .. math:: f = c_\mathrm{skip} x_t + c_\mathrm{out} \hat x_0, \qquad
        c_\mathrm{skip} = \frac{d^2}{u^2 + d^2}, \quad c_\mathrm{out} = \frac{u}{\sqrt{u^2 + d^2}}

    .. math:: \mu = \alpha_{t-1} f, \qquad \sigma = \sigma_{t-1}

    The last step is deterministic and returns :math:`f` itself. At :math:`\tau = 0` the function is the identity, its boundary
    condition; for :math:`\tau \geq 100`, as in few steps, :math:`f` is :math:`\hat x_0` up to :math:`10^{-6}`, and the steps are
    those of :class:`~rlr.samplers.CPS` at level 1.

    References:
        | Latent Consistency Models: Synthesizing High-Resolution Images with Few-Step Inference (Luo et al., 2023), Algorithm 3
        | https://arxiv.org/abs/2310.04378
        | T2VTurboScheduler in scheduler/t2v_turbo_scheduler.py of https://github.com/Ji4chenLi/t2v-turbo
        | LCMScheduler of diffusers

    Args:
        steps: The number :math:`T` of steps.
        scaling: The factor :math:`a > 0` of times from 0 to 999.
        sigma_data: The number :math:`d > 0`.
    """

    def __init__(self, steps: int = 4, scaling: float = 10.0, sigma_data: float = 0.5) -> None:
        super().__init__(steps)
        for name, value in (("scaling", scaling), ("sigma_data", sigma_data)):
            if not value > 0:
                raise ValueError(f"Consistency.{name}: expected a number above 0, got {value}")
        self.scaling = scaling
        self.sigma_data = sigma_data

    def boundary(self, time: float) -> tuple[float, float]:
        r"""Returns :math:`(c_\mathrm{skip}, c_\mathrm{out})` at the network's time :math:`\tau`."""
        u, d = self.scaling * time, self.sigma_data
        return d**2 / (u**2 + d**2), u / (u**2 + d**2) ** 0.5

    def std(self, t: int, grid: Grid) -> float:
        return grid.sigmas[t - 1] if t > 1 else 0.0

    def transition(self, denoised: Tensor, x: Tensor, t: int, grid: Grid) -> Gaussian:
        _check(grid, t)
        c_skip, c_out = self.boundary(grid.times[t])
        f = c_skip * x + c_out * denoised
        return Gaussian(grid.alphas[t - 1] * f if t > 1 else f, self.std(t, grid))


def _check(grid: Grid, t: int) -> None:
    if abs(grid.unscaled(t) ** 2 + grid.sigmas[t] ** 2 - 1) > 1e-6:
        raise ValueError(
            "Consistency: expected a schedule of integer times with α² + σ² = 1, got another one; use CPS with noise_level: 1"
        )
