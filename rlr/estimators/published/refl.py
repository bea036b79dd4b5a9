r"""Reward feedback learning: the gradient of one late step, through its prediction of the finished sample.

.. math:: \hat g = \nabla_\theta R\bigl(\hat x_0(x_t; \theta)\bigr), \qquad t \text{ uniform on } 1, \dots, w,

with :math:`x_t` a constant. It is the gradient of the reward of the prediction, not of the reward of the chain's sample.
"""

from collections.abc import Iterator

import torch

from rlr.chain import Chain
from rlr.estimators.base import Estimator, Term
from rlr.estimators.published.backprop import capped
from rlr.rollout import Rollout
from rlr.seeding import Stream


class ReFL(Estimator):
    r"""Backpropagation of the reward of the one-step prediction, in one random step.

    The logged rewards are those of the predictions, as in the published code.

    References:
        | ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation (Xu et al., 2023), Algorithm 1
        | https://arxiv.org/abs/2304.05977

    Args:
        window: The number :math:`w` of last steps from which :math:`t` is drawn; 10 of 40 in the published code.
        ceiling: The reward above which a sample has no gradient, 2 for ImageReward in the published code; None for no ceiling.
        weight: A factor on the loss, 0.001 in the published code. It has no effect on Adam's steps, unless gradients are clipped
            to a norm.
    """

    def __init__(self, window: int = 10, ceiling: float | None = None, weight: float = 1.0) -> None:
        if window < 1:
            raise ValueError(f"ReFL draws its step from a window of at least one, and got window={window}")
        self.window = window
        self.ceiling = ceiling
        self.weight = weight

    @property
    def differentiable(self) -> bool:
        return True

    def check(self, chain: Chain) -> None:
        if self.window > chain.steps:
            raise ValueError(
                f"ReFL(window={self.window}) is longer than the chain of {chain.steps} steps; "
                f"set window to {chain.steps} at most"
            )

    def step(self, rollout: Rollout) -> int:
        r"""Draws :math:`t`."""
        return int(torch.randint(1, self.window + 1, (), generator=rollout.generator(Stream.DEPTH)))

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        t = self.step(rollout)
        # the published code reports the rewards of predictions, so these are recorded
        rewards = rollout.score_recorded(rollout.predict(t))
        yield Term("first_order", -self.weight * capped(rewards, self.ceiling).mean(), (t,))
