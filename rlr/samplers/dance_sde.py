"""The stochastic form of a rectified flow with constant diffusion, as in DanceGRPO."""

from torch import Tensor

from rlr.gaussian import Gaussian
from rlr.samplers.base import Sampler, check_flow
from rlr.schedules import Grid


class DanceSDE(Sampler):
    r"""Euler–Maruyama steps of a rectified flow's SDE with the constant diffusion :math:`\eta`.

    With :math:`\sigma = \sigma_t`, :math:`\Delta = \sigma_t - \sigma_{t-1}`, velocity :math:`v = (x_t - \hat x_0) / \sigma` and the
    score :math:`-\bigl(x_t - (1 - \sigma) \hat x_0\bigr) / \sigma^2`,

    .. math:: \mu = x_t - \Bigl[v + \frac{\eta^2}{2} \, \frac{x_t - (1 - \sigma) \hat x_0}{\sigma^2}\Bigr] \Delta,
        \qquad \mathrm{std} = \eta \sqrt{\Delta}

    Unlike :class:`~rlr.samplers.FlowSDE` it needs no substitute at :math:`\sigma = 1`, and the marginals of data with a density
    are preserved to first order in :math:`1 / T` from there on. The implied noise that a network leaves in the last step is
    multiplied by :math:`-\eta^2 / 2`, and the sample has the noise of that step: a small :math:`\eta`, or a deterministic last
    step (:class:`~rlr.samplers.AllButLast`), avoids both.

    References:
        | DanceGRPO: Unleashing GRPO on Visual Generation (Xue et al., 2025)
        | https://arxiv.org/abs/2505.07818

    Args:
        steps: The number :math:`T` of steps.
        noise_level: The diffusion :math:`\eta \geq 0`, 0.3 as published; 0 is the deterministic Euler method.
    """

    def __init__(self, steps: int = 20, noise_level: float = 0.3) -> None:
        super().__init__(steps)
        if noise_level < 0:
            raise ValueError(f"DanceSDE.noise_level: expected at least 0, got {noise_level}")
        self.noise_level = noise_level

    def std(self, t: int, grid: Grid) -> float:
        return self.noise_level * (grid.sigmas[t] - grid.sigmas[t - 1]) ** 0.5

    def transition(self, denoised: Tensor, x: Tensor, t: int, grid: Grid) -> Gaussian:
        check_flow(grid, t, "DanceSDE")
        sigma, delta = grid.sigmas[t], grid.sigmas[t] - grid.sigmas[t - 1]
        velocity = (x - denoised) / sigma
        drift = velocity + self.noise_level**2 / 2 * (x - (1 - sigma) * denoised) / sigma**2
        return Gaussian(x - drift * delta, self.std(t, grid))
