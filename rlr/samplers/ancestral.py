"""Ancestral sampling."""

from torch import Tensor

from rlr.gaussian import Gaussian
from rlr.samplers.base import Sampler
from rlr.schedules import Grid


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
