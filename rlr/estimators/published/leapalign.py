r"""LeapAlign: reward backpropagation along two one-step predictions, :math:`x_k \to x_j \to x_0`.

Two steps :math:`k > j` are drawn for each update, uniformly from all pairs. With :math:`\hat x_{s|t}` the one-step prediction of
:math:`x_s` from :math:`x_t` and :math:`\lfloor \cdot \rfloor` for a constant,

.. math:: x_j' = \lfloor x_j \rfloor + \hat x_{j|k} - \lfloor \hat x_{j|k} \rfloor, \qquad
    x_0' = \lfloor x_0 \rfloor + \hat x_{0|j} - \lfloor \hat x_{0|j} \rfloor

have the recorded values and the gradients of the predictions. The input of the network in step :math:`j` is
:math:`\lfloor x_j' \rfloor + \gamma \, (x_j' - \lfloor x_j' \rfloor)`, which multiplies the nested gradient by :math:`\gamma`:
on a rectified flow, with :math:`\sigma` the noise levels and :math:`v` the network's output,

.. math:: \frac{\partial x_0'}{\partial \theta} = -\sigma_j \frac{\partial v(x_j)}{\partial \theta}
    - (\sigma_k - \sigma_j) \frac{\partial v(x_k)}{\partial \theta}
    + \gamma \, \sigma_j (\sigma_k - \sigma_j) \frac{\partial v(x_j)}{\partial x_j} \frac{\partial v(x_k)}{\partial \theta}.

The loss is :math:`\lfloor w \rfloor \max(0, \lambda - R(x_0'))` with a weight that falls with the distance of the predictions
from the recorded states,

.. math:: w = \frac{1}{\max(d_j, \tau) + \max(d_0, \tau)}, \qquad d_j = \overline{|x_j - \hat x_{j|k}|}, \quad
    d_0 = \overline{|x_0 - \hat x_{0|j}|}.

The estimate is biased: a leap is not the steps that it replaces, the nested gradient is discounted, the weights depend on the
sample, and the two steps count once although they stand for the whole chain.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators.base import Term
from rlr.estimators.published.backprop import capped, pin
from rlr.estimators.sample_clip import ClippingEstimator, SampleClip, reward_slope
from rlr.models.base import Condition
from rlr.rollout import Rollout
from rlr.seeding import Stream


class LeapAlign(ClippingEstimator):
    r"""Reward backpropagation along a trajectory of two leaps.

    References:
        | LeapAlign: Post-Training Flow Matching Models at Any Generation Step by Building Two-Step Trajectories
          (Liang et al., 2026), Equations 4 to 13
        | https://arxiv.org/abs/2604.15311

    Args:
        discount: The factor :math:`\gamma \in [0, 1]` of the nested gradient; published are 0.3 for HPSv2.1, and 0.1 for
            PickScore and HPSv3.
        floor: The smallest distance :math:`\tau > 0` that the weights distinguish.
        ceiling: The reward :math:`\lambda` above which a sample has no gradient; published are 0.55 for HPSv2.1, 0.4 for PickScore
            and 13.5 for HPSv3, each on the scale of its network. None for no ceiling.
        weight: A factor on the loss. It has no effect on Adam's steps, unless gradients are clipped to a norm.
        clip: Bounds the gradient of the reward of each sample, which is not published; by default it is not bounded.
    """

    def __init__(
        self,
        discount: float = 0.3,
        floor: float = 0.1,
        ceiling: float | None = None,
        weight: float = 1.0,
        clip: SampleClip | None = None,
    ) -> None:
        if not (0 <= discount <= 1 and floor > 0):
            raise ValueError(f"LeapAlign needs discount in [0, 1] and floor > 0, and got {discount} and {floor}")
        super().__init__(clip)
        self.discount = discount
        self.floor = floor
        self.ceiling = ceiling
        self.weight = weight

    @property
    def differentiable(self) -> bool:
        return True

    def check(self, chain: Chain) -> None:
        if chain.steps < 2:
            raise ValueError("LeapAlign draws two steps, and the chain has one; set the sampler's steps to 2 or more")

    def draw(self, rollout: Rollout) -> tuple[int, int]:
        r"""Draws :math:`k > j`, each pair of steps equally likely."""
        drawn = torch.randperm(rollout.chain.steps, generator=rollout.generator(Stream.DEPTH))[:2] + 1
        return int(drawn.max()), int(drawn.min())

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        k, j = self.draw(rollout)
        x0, similarity = self._leaps(rollout, k, j)
        loss = -self.weight * (similarity * self._rewards(rollout, x0)).mean()
        yield Term("first_order", loss, (k, j), {"leapalign/similarity": similarity.mean()})

    def _rewards(self, rollout: Rollout, x0: Tensor) -> Tensor:
        r"""Returns :math:`\min(\lambda, R(x_0'))`, or what has its gradient with each sample's clipped; shape :math:`(B)`."""
        if self.clip is None:
            return capped(rollout.score_recorded(x0), self.ceiling)
        slope = self.clip(0, reward_slope(rollout))
        below = capped(rollout.rewards, self.ceiling) == rollout.rewards
        return below * (slope * x0).flatten(1).sum(1)

    def _leaps(self, rollout: Rollout, k: int, j: int) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`x_0'`, and :math:`w` with shape :math:`(B)`."""
        chain, states, condition = rollout.chain, rollout.trajectory.states, rollout.trajectory.condition
        predicted_j = chain.leap(chain.denoise_recomputed(states[k], k, condition), states[k], k, j)
        x = pin(states[j], predicted_j)
        predicted_0 = chain.leap(self._discounted(chain, x, j, condition), x, j, 0)
        distances = self._distance(predicted_j, states[j]) + self._distance(predicted_0, states[0])
        return pin(states[0], predicted_0), 1 / distances

    def _discounted(self, chain: Chain, x: Tensor, j: int, condition: Condition) -> Tensor:
        r"""Returns :math:`\hat x_0(x_j')`, with the gradient through the network's input times :math:`\gamma`."""
        constant = x.detach()
        inside = constant + self.discount * (x - constant)
        # x̂₀ = a x + b F: the part of a that the network's input does not pass on
        return chain.denoise_recomputed(inside, j, condition) + chain.skipped(x, j, inside)

    def _distance(self, predicted: Tensor, x: Tensor) -> Tensor:
        r"""Returns :math:`\max(d, \tau)`, with shape :math:`(B)` and without a graph."""
        return (predicted.detach() - x).abs().flatten(1).mean(1).clamp(min=self.floor)
