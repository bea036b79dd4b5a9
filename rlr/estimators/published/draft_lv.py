r"""DRaFT-LV: the last step's gradient, averaged over several noises on one finished sample.

.. math:: \hat g = \frac{1}{n + 1} \Bigl[\nabla_\theta R(x_0)
    + \sum_{i = 1}^{n} \nabla_\theta R\bigl(\hat x_0(x_1^{(i)}; \theta)\bigr)\Bigr],
    \qquad x_1^{(i)} = \alpha_1 x_0 + \sigma_1 \varepsilon_i, \quad \varepsilon_i \sim \mathcal{N}(0, I)

with :math:`x_1` a constant in the first term and :math:`x_0` in the others: :math:`n + 1` gradients of the last step for one
rollout.
"""

from collections.abc import Iterator

from torch import Tensor

from rlr.estimators.base import Estimator, Term
from rlr.estimators.first_order import first_order
from rlr.rollout import Rollout
from rlr.seeding import Stream


class DRaFTLV(Estimator):
    r"""Low-variance backpropagation through the last step.

    References:
        | Directly Fine-Tuning Diffusion Models on Differentiable Rewards (Clark et al., 2024), Section 4.2
        | https://arxiv.org/abs/2309.17400

    Args:
        noises: The number :math:`n` of fresh noises on a finished sample. The published update is the *sum* of the gradients,
            which is :math:`n + 1` times as long.
        weight: A factor on the loss. It has no effect on Adam's steps, unless gradients are clipped to a norm.
    """

    def __init__(self, noises: int = 2, weight: float = 1.0) -> None:
        if noises < 1:
            raise ValueError(
                f"DRaFTLV needs at least one noise, and got noises={noises}; without noises use FirstOrder"
            )
        self.noises = noises
        self.weight = weight

    @property
    def differentiable(self) -> bool:
        return True

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        weight = self.weight / (self.noises + 1)
        yield first_order(rollout, 1, weight)
        for k in range(self.noises):
            x = rollout.chain.look_ahead(self._noised(rollout, k), 1, rollout.trajectory.condition)
            loss = -weight * rollout.score(x).mean()
            yield Term("first_order", loss, (1,))
            del x, loss  # their graph must be gone before the next is built

    def _noised(self, rollout: Rollout, k: int) -> Tensor:
        r"""Returns :math:`x_1^{(k)}`."""
        x, grid = rollout.trajectory.states[0], rollout.chain.grid
        return grid.alphas[1] * x + grid.sigmas[1] * rollout.normal(Stream.RENOISE, k)
