r"""The hybrid policy gradient of RTDMD: GRPO on the steps with noise, and reward backpropagation through the last step.

It is made for distilled models of few steps, whose last step has no noise and so no likelihood. With :math:`L` the loss of
:class:`~rlr.estimators.published.grpo.GRPO` over :math:`T'` steps, :math:`x_0(x_1; \theta)` the last step from the recorded
state and :math:`m` a margin,

.. math:: L + \frac{\lambda}{n \, T'} \sum_{i = 1}^{n} \max\bigl(0, \; m - R(x_0(x_{1,i}; \theta))\bigr)

is the loss of an update over :math:`n` samples: the hinge counts as one step more. A sample whose reward is above the margin has
no gradient of the last step.

The authors' second stage also distills the teacher in the last step, by distribution matching with a teacher and a score network
of the generator; that is not a gradient of the reward, and is not part of this class.

The estimate is biased by what biases GRPO, by the margin and by :math:`\lambda`. With :math:`\lambda = 1 / D`, for latents of
:math:`D` dimensions, and advantages that are not divided by a standard deviation, the first gradient of a round is that of the
reward over :math:`D \, T'`, without bias: every step is covered once.
"""

from collections.abc import Iterator

from rlr.estimators.base import Term
from rlr.estimators.published.backprop import capped
from rlr.estimators.published.grpo import GRPO
from rlr.estimators.replay import Minibatch
from rlr.estimators.statistics import Statistics
from rlr.estimators.surrogates import ImportanceRatio, Surrogate
from rlr.estimators.values import check_gradient, scorer
from rlr.rewards.base import Reward


class HybridPolicyGradient(GRPO):
    r"""Clipped policy gradients on the steps with noise, and a hinge of the reward through the last step.

    References:
        | Reinforcing Few-step Generators via Reward-Tilted Distribution Matching (Huang et al., 2026)
        | https://arxiv.org/abs/2605.26108
        | https://github.com/Harahan/RTDMD, at bdfabaa

    Args:
        num_minibatches: The number of updates of one pass over a round, 1 as published.
        epochs: The number of passes over a round.
        minibatch: The number of samples of one backward pass; by default the number of samples of a batch.
        surrogate: The loss of the steps with noise; by default ``ImportanceRatio(1e-5)``, as published.
        statistics: The statistics that turn rewards into advantages; by default the mean of the group and the standard deviation
            of the round, as published.
        advantage_clip: The largest absolute value of an advantage; None does not clip.
        kl: The weight of GRPO's penalty, 0 as published.
        margin: The reward :math:`m` above which a sample has no gradient of the last step; published is 3 for a sum of CLIPScore,
            HPSv2 and PickScore, each about 0 to 1, which no sample reaches. None for no margin.
        weight: The factor :math:`\lambda \geq 0` of the hinge; published is 1e-4.
        reward: The reward of the last step, which must be differentiable; by default the one that is aligned to. The authors leave
            out rewards without a gradient there.
    """

    label = "hybrid"

    def __init__(
        self,
        num_minibatches: int = 1,
        epochs: int = 1,
        minibatch: int | None = None,
        surrogate: Surrogate | None = None,
        statistics: Statistics | None = None,
        advantage_clip: float | None = 5.0,
        kl: float = 0.0,
        margin: float | None = None,
        weight: float = 1e-4,
        reward: Reward | None = None,
    ) -> None:
        surrogate = surrogate or ImportanceRatio(1e-5)
        super().__init__(num_minibatches, epochs, minibatch, surrogate, statistics, advantage_clip, kl=kl)
        if weight < 0:
            raise ValueError(f"HybridPolicyGradient.weight: expected at least 0, got {weight}")
        if reward is not None:
            check_gradient(reward, "HybridPolicyGradient.reward")
        self.margin = margin
        self.weight = weight
        self.reward = reward

    @property
    def differentiable(self) -> bool:
        return self.reward is None

    def minibatch_terms(self, minibatch: Minibatch) -> Iterator[Term]:
        yield from super().minibatch_terms(minibatch)
        yield self._last_step(minibatch)

    def _last_step(self, minibatch: Minibatch) -> Term:
        r"""Returns the term of the hinge; that of :math:`-\min(R, m)` has the same gradient."""
        rollout = minibatch.rollout
        score = rollout.score if self.reward is None else scorer(self.reward, rollout)
        hinge = -capped(score(rollout.replay_sample(1)), self.margin).mean()
        return Term("first_order", self.weight / len(self._steps(rollout.chain)) * hinge, (1,))
