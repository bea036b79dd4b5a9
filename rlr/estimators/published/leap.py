r"""One-step predictions between any two states of a chain, and states that keep their recorded values.

Both belong to estimators that backpropagate through an approximate path and evaluate it where the chain was.
"""

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlr.chain import Chain
from rlr.models.base import Condition


def leap(chain: Chain, denoised: Tensor, x: Tensor, t: int, s: int) -> Tensor:
    r"""Returns the one-step prediction of :math:`x_s` from :math:`x_t`.

    .. math:: \hat x_{s|t} = \alpha_s \hat x_0 + \sigma_s \hat z, \qquad \hat z = \frac{x_t - \alpha_t \hat x_0}{\sigma_t}

    On a rectified flow this is :math:`x_t - (\sigma_t - \sigma_s) v`.

    Args:
        chain: The chain.
        denoised: The estimate :math:`\hat x_0(x_t)`, with shape :math:`(B, *)`.
        x: The state :math:`x_t`.
        t: The number of the state, :math:`t \geq 1`.
        s: The number of the predicted state, :math:`0 \leq s < t`.
    """
    grid = chain.grid
    noise = (x - grid.alphas[t] * denoised) / grid.sigmas[t]
    return grid.alphas[s] * denoised + grid.sigmas[s] * noise


def pin(value: Tensor, path: Tensor) -> Tensor:
    r"""Returns ``value`` to the bit, with the gradient of ``path`` (a straight-through estimate)."""
    return value.detach() + (path - path.detach())


def denoise(chain: Chain, x: Tensor, t: int, condition: Condition) -> Tensor:
    r"""Returns :math:`\hat x_0(x_t)` with gradient; if the chain recomputes its steps, only the input is kept."""
    if not chain.checkpoint:
        return chain.denoise(x, t, condition)
    denoised: Tensor = checkpoint(chain.denoise, x, t, condition, use_reentrant=False)
    return denoised
