r"""DRaFT-LV: the last step's gradient, averaged over several noises on one finished sample.

.. math:: \hat g = \frac{1}{n + 1} \Bigl[\nabla_\theta R(x_0)
    + \sum_{i = 1}^{n} \nabla_\theta R\bigl(\hat x_0(x_1^{(i)}; \theta)\bigr)\Bigr],
    \qquad x_1^{(i)} = \alpha_1 x_0 + \sigma_1 \varepsilon_i, \quad \varepsilon_i \sim \mathcal{N}(0, I)

with :math:`x_1` a constant in the first term and :math:`x_0` in the others: :math:`n + 1` gradients of the last step for one
roll-out.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from rlr.chain import Chain, Trajectory
from rlr.distributed import rank
from rlr.estimators.base import Estimator, Objective, Term
from rlr.estimators.first_order import first_order
from rlr.seeding import Stream, spawn


class DRaFTLV(Estimator):
    r"""Low-variance backpropagation through the last step.

    References:
        | Directly Fine-Tuning Diffusion Models on Differentiable Rewards (Clark et al., 2024), Section 4.2
        | https://arxiv.org/abs/2309.17400

    Args:
        noises: The number :math:`n` of fresh noises on a finished sample. The published update is their *sum*, which is
            :math:`n + 1` times as long.
        weight: A factor on the loss. Adam does not see it, a norm to clip to does.
    """

    def __init__(self, noises: int = 2, weight: float = 1.0) -> None:
        if noises < 1:
            raise ValueError(f"DRaFTLV needs at least one noise, and got noises={noises}; without any it is FirstOrder")
        self.noises = noises
        self.weight = weight

    @property
    def differentiable(self) -> bool:
        return True

    def losses(self, chain: Chain, trajectory: Trajectory, objective: Objective) -> Iterator[Term]:
        weight = self.weight / (self.noises + 1)
        term = first_order(chain, trajectory, objective, 1, weight)
        rewards = term.rewards
        yield term
        del term  # its graph must be gone before the next is built
        for k in range(self.noises):
            x = self._noised(chain, trajectory, k)
            loss = -weight * objective(chain.look_ahead(x, 1, trajectory.condition)).mean()
            yield Term("first_order", loss, (1,), rewards)
            del loss  # likewise

    def _noised(self, chain: Chain, trajectory: Trajectory, k: int) -> Tensor:
        r"""Returns :math:`x_1^{(k)}`."""
        x = trajectory.states[0]
        # ranks share the seed and draw for each other, so that their samples differ
        shape = ((rank() + 1) * len(x), *x.shape[1:])
        generator = torch.Generator().manual_seed(spawn(trajectory.seed, Stream.RENOISE, k))
        epsilon = torch.randn(shape, generator=generator, dtype=x.dtype)[-len(x) :].to(x.device)
        return chain.grid.alphas[1] * x + chain.grid.sigmas[1] * epsilon
