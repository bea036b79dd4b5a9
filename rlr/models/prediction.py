"""What a denoising network predicts, and the estimate of the clean latent that follows from it."""

from collections.abc import Callable

import torch
from torch import Tensor

Prediction = Callable[[Tensor, Tensor, float, float], Tensor]
r"""The denoised estimate :math:`\hat x_0` from (the network's output, :math:`x_\tau`, :math:`\alpha`, :math:`\sigma`)."""


def noise(output: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
    r"""Returns :math:`\hat x_0 = (x_\tau - \sigma \hat\epsilon) / \alpha` for a network that predicts the noise."""
    return (x - sigma * output) / alpha


def velocity(output: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
    r"""Returns :math:`\hat x_0 = \alpha x_\tau - \sigma \hat v` for one of :math:`v = \alpha \epsilon - \sigma x_0`.

    References:
        | Progressive Distillation for Fast Sampling of Diffusion Models (Salimans & Ho, 2022), Appendix D
        | https://arxiv.org/abs/2202.00512
    """
    return alpha * x - sigma * output


def clean(output: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
    r"""Returns :math:`\hat x_0` of a network that predicts it itself."""
    return output


def flow(output: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
    r"""Returns :math:`\hat x_0 = x_\tau - \sigma \hat v` for one of :math:`v = \epsilon - x_0` on a rectified flow.

    References:
        | Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024)
        | https://arxiv.org/abs/2403.03206
    """
    return x - sigma * output


def slope(prediction: Prediction, alpha: float, sigma: float) -> float:
    r"""Returns :math:`\partial \hat x_0 / \partial x_\tau` at a constant output; every prediction is affine in both."""
    output, x = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    return prediction(output, x, alpha, sigma).item()


PREDICTIONS: dict[str, Prediction] = {"epsilon": noise, "v_prediction": velocity, "sample": clean}
"""By the ``prediction_type`` of a scheduler's configuration."""
