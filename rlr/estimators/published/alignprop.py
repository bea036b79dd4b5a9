r"""AlignProp: backpropagation through the whole chain, with the output of the network a constant in random steps.

The path of the latent :math:`x_T \to \dots \to x_0` is never cut. Whether the output of the network has a gradient is
drawn in each step, and late steps keep it more often than early steps:

.. math:: P(\text{step } t \text{ keeps its gradient}) = \frac{T - t + 1}{T + 1}, \qquad \text{half of the steps on average.}

This is what the code of the paper does; its text, and its later versions, draw one number :math:`K` of last steps for the whole
chain, which is :class:`~rlr.estimators.first_order.FirstOrder` with a random depth.
"""

from collections.abc import Iterator

import torch

from rlr.chain import Chain
from rlr.estimators.base import Estimator, Term
from rlr.rollout import Rollout
from rlr.seeding import Stream, spawn


class AlignProp(Estimator):
    r"""Randomized truncation in every step, as in the published code.

    Step :math:`i = T - t` of the sampler, counted from 0, draws an integer :math:`r` uniformly from ``low`` … ``high``, both
    included, and keeps its gradient if :math:`i \geq r`. A draw in which no step keeps its gradient is repeated.

    References:
        | Aligning Text-to-Image Diffusion Models with Reward Backpropagation (Prabhudesai et al., 2023)
        | https://arxiv.org/abs/2310.03739

    Args:
        low: The smallest :math:`r`; steps before it never keep their gradient.
        high: The largest :math:`r`; by default :math:`T`.
        weight: A factor on the loss, 0.01 in the published code. It has no effect on Adam's steps, unless gradients are clipped
            to a norm.
    """

    def __init__(self, low: int = 0, high: int | None = None, weight: float = 1.0) -> None:
        if low < 0 or (high is not None and high < low):
            raise ValueError(f"AlignProp needs 0 <= low <= high, and got low={low}, high={high}")
        self.low = low
        self.high = high
        self.weight = weight

    @property
    def differentiable(self) -> bool:
        return True

    def check(self, chain: Chain) -> None:
        if self.low >= chain.steps:
            raise ValueError(
                f"AlignProp(low={self.low}) leaves no gradient in a chain of {chain.steps} steps; "
                f"set low to {chain.steps - 1} at most"
            )

    def kept(self, steps: int, seed: int) -> list[int]:
        r"""Draws the steps that keep their gradient, at least one, in the order of the chain."""
        generator = torch.Generator().manual_seed(spawn(seed, Stream.DEPTH))
        high = steps if self.high is None else self.high
        while True:
            drawn = torch.randint(self.low, high + 1, (steps,), generator=generator).tolist()
            kept = [steps - i for i, r in enumerate(drawn) if i >= r]
            if kept:
                return kept

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        kept = self.kept(rollout.chain.steps, rollout.seed)
        # before the first of these steps the weights have no effect
        stop_grad_steps = set(range(kept[0], 0, -1)) - set(kept)
        rewards = rollout.score_recorded(rollout.replay_sample(kept[0], stop_grad_steps))
        yield Term("first_order", -self.weight * rewards.mean(), tuple(kept))
