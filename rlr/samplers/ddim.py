"""Denoising diffusion implicit models."""

from torch import Tensor

from rlr.gaussian import Gaussian
from rlr.samplers.base import Sampler, preserve
from rlr.schedules import Grid


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
