r"""Direct-Align: one step from a noised sample, whose known noise is then taken out again.

A finished sample :math:`x_0` and the first noise :math:`\epsilon = x_T` of its chain make a noised state. A single step of the
network leads from it to a less noisy state, from which the known noise recovers a sample:

.. math:: x_t = \alpha_t x_0 + \sigma_t \epsilon, \qquad
    \hat x_s = \alpha_s \hat x_0(x_t; \theta) + \sigma_s \hat z(x_t; \theta), \qquad
    x_0' = \frac{\hat x_s - \sigma_s \epsilon}{\alpha_s}

With :math:`r = \sigma_s \alpha_t / (\alpha_s \sigma_t)` this is

.. math:: x_0' = x_0 + (1 - r) \, (\hat x_0(x_t; \theta) - x_0),

a sample near :math:`x_0` however noisy :math:`x_t` is, and

.. math:: \hat g = \lambda_s \nabla_\theta R(x_0'), \qquad \lambda_s = \frac{a u}{1 + (a - 1) u}, \quad u = s / T

its gradient, which is smaller in late steps, where rewards are exploited most. With SRPO the reward is
:class:`~rlr.rewards.relative.Relative`.

The estimate is biased: it differentiates samples between the chain's own and one-step predictions, as if each step decided the
sample alone, and its states are those of the forward process.
"""

from collections.abc import Iterator
from math import ceil

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators.base import Estimator, Term
from rlr.estimators.segments import StepRange
from rlr.rollout import Rollout
from rlr.seeding import Stream


class DirectAlign(Estimator):
    r"""Backpropagation of the reward of recovered samples, in random steps of the whole chain (Direct-Align, SRPO).

    The state :math:`s` is uniform on the states of the step range but the noisiest, and :math:`t = s + \min(s, K, T - s)`: the step
    is short at both ends. The logged rewards are those of the first recovered samples.

    References:
        | Directly Aligning the Full Diffusion Trajectory with Fine-Grained Human Preference (Shen et al., 2025), Section 3.1
        | https://arxiv.org/abs/2509.06942
        | https://github.com/Tencent-Hunyuan/SRPO, ``fastvideo/SRPO_Qwen.py``

    Args:
        draws: The number of steps that an update averages over, 2 in the released code.
        span: The largest length :math:`K` of a step, as a share of :math:`T` in (0, 1].
        shift: The :math:`a \geq 1` of :math:`\lambda`, 3 in the released code; 1 is linear in :math:`s`.
        inversion: The weight of a second term for each draw: the step leads from :math:`x_s` up to :math:`x_t`, and its reward is
            minimized, which regularizes (the paper's inversion branch); 0, as in the released code, adds no such term.
        step_range: The noisiest and the cleanest state that are used, :math:`T \geq t > s \geq 1`; by default all. The
            released code uses the noise levels of steps 45 to 10 of 50.
        weight: A factor on the loss. It has no effect on Adam's steps, unless gradients are clipped to a norm.
    """

    def __init__(
        self,
        draws: int = 1,
        span: float = 0.4,
        shift: float = 3.0,
        inversion: float = 0.0,
        step_range: StepRange | None = None,
        weight: float = 1.0,
    ) -> None:
        if not (draws >= 1 and 0 < span <= 1 and shift >= 1 and inversion >= 0):
            raise ValueError(
                "DirectAlign needs draws >= 1, span in (0, 1], shift >= 1 and inversion >= 0, and got "
                f"{draws}, {span}, {shift} and {inversion}"
            )
        self.draws = draws
        self.span = span
        self.shift = shift
        self.inversion = inversion
        self.step_range = step_range
        self.weight = weight

    @property
    def differentiable(self) -> bool:
        return True

    def check(self, chain: Chain) -> None:
        high, low = self._range(chain)
        if not chain.steps >= high > low >= 1:
            raise ValueError(
                f"DirectAlign.step_range: expected two of the states {chain.steps} … 1, the noisier one first, got "
                f"{[high, low]}; set it within the chain, or the sampler's steps to 2 or more"
            )
        if self.inversion and chain.grid.alphas[high] == 0:
            raise ValueError(
                f"DirectAlign.inversion: no sample can be recovered from state {high}, which has no signal (α = 0); set "
                f"step_range to [{high - 1}, {low}]"
            )

    def draw(self, rollout: Rollout, k: int) -> tuple[int, int]:
        r"""Draws :math:`t > s` of a draw."""
        high, low = self._range(rollout.chain)
        s = int(torch.randint(low, high, (), generator=rollout.generator(Stream.DEPTH, k)))
        return s + min(s, ceil(self.span * rollout.chain.steps), high - s), s

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        for k in range(self.draws):
            t, s = self.draw(rollout, k)
            score = rollout.score if k else rollout.score_recorded
            yield self._term(rollout, score(self._recovered(rollout, t, s)), t, s)
            if self.inversion:
                rewards = -self.inversion * rollout.score(self._recovered(rollout, s, t))
                yield self._term(rollout, rewards, s, s)
                del rewards  # their graph must be gone before the next is built

    def _term(self, rollout: Rollout, rewards: Tensor, step: int, s: int) -> Term:
        u = s / rollout.chain.steps
        discount = self.shift * u / (1 + (self.shift - 1) * u)
        return Term("first_order", -self.weight * discount / self.draws * rewards.mean(), (step,))

    def _recovered(self, rollout: Rollout, t: int, s: int) -> Tensor:
        r"""Returns :math:`x_0'` of a step from :math:`t` to :math:`s`."""
        chain, grid, trajectory = rollout.chain, rollout.chain.grid, rollout.trajectory
        x, epsilon = trajectory.states[0], trajectory.states[chain.steps]
        noised = grid.alphas[t] * x + grid.sigmas[t] * epsilon
        moved = chain.leap(chain.denoise_recomputed(noised, t, trajectory.condition), noised, t, s)
        return (moved - grid.sigmas[s] * epsilon) / grid.alphas[s]

    def _range(self, chain: Chain) -> StepRange:
        return self.step_range or (chain.steps, 1)
