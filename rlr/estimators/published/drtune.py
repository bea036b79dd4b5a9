r"""DRTune: a few trained steps spread over the chain, with the gradient stopped at the input of the network.

Write :math:`F` for the network's output and :math:`\lfloor \cdot \rfloor` for a constant. Step :math:`t` of the chain is affine in
its state and in the output, and with :math:`\lfloor x_t \rfloor` as the input of the network

.. math:: x_{t-1} = A_t x_t + B_t F(\lfloor x_t \rfloor; \theta) + \sigma_t z_{t-1}

depends on earlier steps through :math:`A_t x_t` alone. :math:`K` steps are trained, :math:`T / K` apart (rounded down), the last
one uniform on what leaves room for all; in the others :math:`F` is a constant. The reward is that of the prediction
:math:`\hat x_{0|m}` in step :math:`m`, uniform on :math:`1, \dots, M`:

.. math:: \hat g = \sum_{t \in \mathrm{trained},\, t \geq m}
    \Bigl(\frac{\partial F(x_t; \theta)}{\partial \theta}\Bigr)^{\!\top} B_t A_{t-1} \cdots A_m'
    \frac{\partial R}{\partial \hat x_{0|m}}

with :math:`A_m', B_m'` those of the prediction. The estimate is biased: it leaves out how a step acts on the outputs of later
steps, and it differentiates the reward of a prediction.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators.base import Estimator, Term
from rlr.estimators.published.backprop import capped, pin
from rlr.rollout import Rollout
from rlr.seeding import Stream


class DRTune(Estimator):
    r"""Deep reward tuning.

    The steps that are not trained cost no pass: their gradient follows from the sampler alone. The logged rewards are those of the
    predictions.

    References:
        | Deep Reward Supervisions for Tuning Text-to-Image Diffusion Models (Wu et al., 2024)
        | https://arxiv.org/abs/2405.00760

    Args:
        trained: The number :math:`K` of trained steps, 2 of 25 in the LeapAlign paper's comparison.
        window: The number :math:`M` of last steps from which the step of the prediction is drawn, 11 of 25 there.
        ceiling: The reward above which a sample has no gradient; None for no ceiling.
        weight: A factor on the loss. It has no effect on Adam's steps, unless gradients are clipped to a norm.
    """

    def __init__(self, trained: int = 2, window: int = 11, ceiling: float | None = None, weight: float = 1.0) -> None:
        if trained < 1 or window < 1:
            raise ValueError(f"DRTune needs trained >= 1 and window >= 1, and got {trained} and {window}")
        self.trained = trained
        self.window = window
        self.ceiling = ceiling
        self.weight = weight

    @property
    def differentiable(self) -> bool:
        return True

    def check(self, chain: Chain) -> None:
        if self.trained > chain.steps:
            raise ValueError(
                f"DRTune(trained={self.trained}) trains more steps than the {chain.steps} of the chain; "
                f"set trained to {chain.steps} at most"
            )
        # the first trained step is at least this one
        largest = 1 + (self.trained - 1) * (chain.steps // self.trained)
        if self.window > largest:
            raise ValueError(
                f"DRTune(trained={self.trained}, window={self.window}): in a chain of {chain.steps} steps the prediction may "
                f"come before every trained step, which leaves no gradient; set window to {largest} at most"
            )

    def draw(self, rollout: Rollout) -> tuple[list[int], int]:
        r"""Draws the trained steps, in the order of the chain, and the step :math:`m` of the prediction."""
        generator, steps = rollout.generator(Stream.DEPTH), rollout.chain.steps
        stride = steps // self.trained
        s = int(torch.randint(1, steps - (self.trained - 1) * stride + 1, (), generator=generator))
        m = int(torch.randint(1, self.window + 1, (), generator=generator))
        return [s + i * stride for i in reversed(range(self.trained))], m

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        trained, m = self.draw(rollout)
        kept = [t for t in trained if t >= m]
        rewards = rollout.score_recorded(self._predict(rollout, set(kept), kept[0], m))
        yield Term("first_order", -self.weight * capped(rewards, self.ceiling).mean(), tuple(kept))

    def _predict(self, rollout: Rollout, trained: set[int], first: int, m: int) -> Tensor:
        r"""Returns :math:`\hat x_{0|m}`; no weight acts before step ``first``."""
        chain, states = rollout.chain, rollout.trajectory.states
        x = states[first]
        for t in range(first, m, -1):
            denoised = self._denoised(rollout, x, t) if t in trained else chain.skipped(x, t)
            # the mean is linear in x̂₀ and x: its gradient needs no value of x̂₀, and the value of the state is recorded
            x = pin(states[t - 1], chain.sampler.transition(denoised, x, t, chain.grid).mean)
        with torch.set_grad_enabled(m in trained):
            denoised = chain.denoise_recomputed(states[m], m, rollout.trajectory.condition)
        return chain.leap(denoised + chain.skipped(x, m), x, m, 0)

    def _denoised(self, rollout: Rollout, x: Tensor, t: int) -> Tensor:
        """Returns the estimate of a trained step, with the gradients of the weights and of the latent's own path."""
        chain, trajectory = rollout.chain, rollout.trajectory
        return chain.denoise_recomputed(trajectory.states[t], t, trajectory.condition) + chain.skipped(x, t)
