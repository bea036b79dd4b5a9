r"""EDICT: deterministic sampling that is inverted exactly, by two coupled chains.

Deterministic DDIM (:math:`\eta = 0`) moves a state affinely along the noise :math:`\hat z` that the network sees in it,

.. math:: x_{t-1} = a_t x_t + b_t \hat z(x_t), \qquad a_t = \frac{\alpha_{t-1}}{\alpha_t}, \quad
    b_t = \sigma_{t-1} - a_t \sigma_t,

and cannot be undone, since :math:`\hat z` is known at :math:`x_t` only. EDICT takes the noise of each of two chains from the
*other* one, which is still there when the step is undone, and then mixes the two so that they stay together:

.. math::
    x' = a_t x_t + b_t \hat z(y_t), \quad y' = a_t y_t + b_t \hat z(x'), \qquad
    x_{t-1} = p x' + (1 - p) y', \quad y_{t-1} = p y' + (1 - p) x_{t-1}

In every other step :math:`x` and :math:`y` change places. A pair of states is one tensor with shape :math:`(2, B, *)`.
"""

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.models.base import Condition


class EDICT:
    r"""The coupled chains, their inverse, and their gradient in constant memory.

    Rounding errors grow in the inverse by about :math:`p^{-2}` a step, so states should be float32 at least, whatever the
    weights are.

    References:
        | EDICT: Exact Diffusion Inversion via Coupled Transformations (Wallace et al., 2023)
        | https://arxiv.org/abs/2211.12446

    Args:
        chain: The chain; of its sampler only the number of steps matters.
        mixing: The weight :math:`p \in (0, 1]` of a chain's own state. Less keeps the chains closer together, and
            lets rounding errors grow faster.

    Raises:
        ValueError: If a state of the chain has no signal (:math:`\alpha_T = 0`), which a step would divide by.
    """

    def __init__(self, chain: Chain, mixing: float = 0.93) -> None:
        if not 0 < mixing <= 1:
            raise ValueError(f"EDICT's mixing must lie in (0, 1], and {mixing} does not")
        if min(chain.grid.alphas) <= 0:
            raise ValueError(
                f"EDICT divides by the signal levels of {type(chain.model).__name__}, and that of its first state is 0 (a "
                "rectified flow, or zero terminal signal-to-noise); use a model whose schedule keeps some signal"
            )
        self.chain = chain
        self.mixing = mixing

    def sample(self, pair: Tensor, condition: Condition) -> Tensor:
        r"""Returns :math:`(x_0, y_0)` from :math:`(x_T, y_T)`."""
        for t in range(self.chain.steps, 0, -1):
            pair = self.step(pair, t, condition)
        return pair

    def invert(self, pair: Tensor, condition: Condition) -> Tensor:
        r"""Returns :math:`(x_T, y_T)` from :math:`(x_0, y_0)`."""
        for t in range(1, self.chain.steps + 1):
            pair = self.step_back(pair, t, condition)
        return pair

    def step(self, pair: Tensor, t: int, condition: Condition) -> Tensor:
        r"""Returns :math:`(x_{t-1}, y_{t-1})` from :math:`(x_t, y_t)`."""
        (x, y), (a, b), p = ordered(pair, t), self._coefficients(t), self.mixing
        x = a * x + b * self._noise(y, t, condition)
        y = a * y + b * self._noise(x, t, condition)
        x = p * x + (1 - p) * y
        y = p * y + (1 - p) * x
        return ordered(torch.stack([x, y]), t)

    def step_back(self, pair: Tensor, t: int, condition: Condition) -> Tensor:
        r"""Returns :math:`(x_t, y_t)` from :math:`(x_{t-1}, y_{t-1})`."""
        (x, y), (a, b), p = ordered(pair, t), self._coefficients(t), self.mixing
        y = (y - (1 - p) * x) / p
        x = (x - (1 - p) * y) / p
        y = (y - b * self._noise(x, t, condition)) / a
        x = (x - b * self._noise(y, t, condition)) / a
        return ordered(torch.stack([x, y]), t)

    def pull_back(self, pair: Tensor, gradient: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        r"""Takes a gradient from the end of the chains to their beginning, inverting them on the way.

        No state is kept but the present one, and one evaluation of the network has a graph at a time: the memory does
        not depend on the number of steps.

        Args:
            pair: The last states :math:`(x_0, y_0)`.
            gradient: The gradient :math:`(\partial R / \partial x_0, \partial R / \partial y_0)`, of the same shape.
            condition: The condition of the prompts.

        Returns:
            :math:`(x_T, y_T)` and the gradient in them.
        """
        for t in range(1, self.chain.steps + 1):
            pair, gradient = self._pull_back(pair, gradient, t, condition)
        return pair, gradient

    def _pull_back(self, pair: Tensor, gradient: Tensor, t: int, condition: Condition) -> tuple[Tensor, Tensor]:
        """As :meth:`step_back`, line by line, with the gradient ``g_x`` in ``x`` and ``g_y`` in ``y``."""
        (x, y), (g_x, g_y), (a, b), p = ordered(pair, t), ordered(gradient, t), self._coefficients(t), self.mixing
        y = (y - (1 - p) * x) / p
        g_x, g_y = g_x + (1 - p) * g_y, p * g_y
        x = (x - (1 - p) * y) / p
        g_x, g_y = p * g_x, g_y + (1 - p) * g_x
        noise, slope = self._linearised(x, g_y, t, condition)
        y = (y - b * noise) / a
        g_x, g_y = g_x + b * slope, a * g_y
        noise, slope = self._linearised(y, g_x, t, condition)
        x = (x - b * noise) / a
        g_x, g_y = a * g_x, g_y + b * slope
        return ordered(torch.stack([x, y]), t), ordered(torch.stack([g_x, g_y]), t)

    def _linearised(self, x: Tensor, gradient: Tensor, t: int, condition: Condition) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\hat z(x)` and :math:`(\partial \hat z / \partial x)^\top g`."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            noise = self._noise(x, t, condition)
            (slope,) = torch.autograd.grad(noise, x, gradient)
        return noise.detach(), slope

    def _coefficients(self, t: int) -> tuple[float, float]:
        r"""Returns :math:`a_t` and :math:`b_t`."""
        grid = self.chain.grid
        a = grid.alphas[t - 1] / grid.alphas[t]
        return a, grid.sigmas[t - 1] - a * grid.sigmas[t]

    def _noise(self, x: Tensor, t: int, condition: Condition) -> Tensor:
        r"""Returns :math:`\hat z(x) = (x - \alpha_t \hat x_0(x)) / \sigma_t`."""
        grid = self.chain.grid
        return (x - grid.alphas[t] * self.chain.denoise(x, t, condition)) / grid.sigmas[t]


def ordered(pair: Tensor, t: int) -> Tensor:
    """Returns a pair in the order in which step ``t`` computes it, or back in its own: swapped where ``t`` is odd."""
    return pair.flip(0) if t % 2 else pair
