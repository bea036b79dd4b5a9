r"""What a pre-training loss measures: the error of a prediction :math:`\hat x_0(x_t)` of a clean sample :math:`x_0`.

With :math:`e = \hat x_0 - x_0`, every linear prediction of the network has an error proportional to :math:`e`. All errors are means
over the :math:`D` dimensions of a latent.
"""

from abc import ABC, abstractmethod

from torch import Tensor


class MatchingError(ABC):
    """An error of each sample."""

    @abstractmethod
    def of(self, e: Tensor, alpha: float, sigma: float) -> Tensor:
        r"""Returns the errors, with shape :math:`(n)`.

        Args:
            e: The differences :math:`\hat x_0 - x_0`, with shape :math:`(n, *)`.
            alpha: The signal level :math:`\alpha_t`.
            sigma: The noise level :math:`\sigma_t`.
        """


class VelocityError(MatchingError):
    r"""The squared error of the velocity, :math:`|e|^2 / (D \, \sigma_t^2)`.

    This is the pre-training loss of a rectified flow, :math:`v = \varepsilon - x_0`, and of :math:`v`-prediction on a
    variance-preserving schedule, :math:`v = \alpha_t \varepsilon - \sigma_t x_0`.
    """

    def of(self, e: Tensor, alpha: float, sigma: float) -> Tensor:
        return mean_square(e) / sigma**2


class NoiseError(MatchingError):
    r"""The squared error of the noise, :math:`\alpha_t^2 |e|^2 / (D \, \sigma_t^2)`: how Stable Diffusion 1 was trained."""

    def of(self, e: Tensor, alpha: float, sigma: float) -> Tensor:
        return (alpha / sigma) ** 2 * mean_square(e)


class CleanError(MatchingError):
    r"""The squared error of the clean sample, :math:`|e|^2 / D`."""

    def of(self, e: Tensor, alpha: float, sigma: float) -> Tensor:
        return mean_square(e)


class NormalizedError(MatchingError):
    r"""The squared error of the clean sample over its own mean absolute error, :math:`|e|^2 / \mathrm{sg}(|e|_1)`.

    The divisor, at least :math:`10^{-5} D`, is a constant in the gradient, so that the gradients of all levels have about the
    same size.

    References:
        | DiffusionNFT: Online Diffusion Reinforcement with Forward Process (Zheng et al., 2025)
        | https://arxiv.org/abs/2509.16117
    """

    def of(self, e: Tensor, alpha: float, sigma: float) -> Tensor:
        return mean_square(e) / e.detach().abs().flatten(1).mean(1).clamp_min(1e-5)


class PowerVelocityError(MatchingError):
    r"""A power of the squared velocity error, :math:`\frac{\sigma_t}{p} \bigl((m + \delta)^p - \delta^p\bigr)` of
    :math:`m = |e|^2 / (D \, \sigma_t^2)`, with :math:`\delta = 10^{-10}`.

    A small :math:`p` divides the gradient by about the error itself. The published code of AWM uses it.

    References:
        | Advantage Weighted Matching: Aligning RL with Pretraining in Diffusion Models (Xue et al., 2025)
        | https://arxiv.org/abs/2509.25050

    Args:
        power: The power :math:`p` in (0, 1].
    """

    def __init__(self, power: float = 0.25) -> None:
        if not 0 < power <= 1:
            raise ValueError(f"PowerVelocityError.power: expected a number in (0, 1], got {power}")
        self.power = power

    def of(self, e: Tensor, alpha: float, sigma: float) -> Tensor:
        m, delta = mean_square(e) / sigma**2, 1e-10
        return sigma * ((m + delta) ** self.power - delta**self.power) / self.power


def mean_square(e: Tensor) -> Tensor:
    r"""Returns :math:`|e|^2 / D`, with shape :math:`(n)`."""
    return e.flatten(1).square().mean(1)
