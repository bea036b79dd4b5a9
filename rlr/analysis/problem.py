"""A chain, an objective and prompts: what a gradient is estimated of."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators.base import Estimator
from rlr.rollout import Objective, Rollout


@dataclass(frozen=True)
class Problem:
    r"""The gradient :math:`g = \nabla_\theta E[R(x_0)]`, for fixed prompts.

    Args:
        chain: The chain of :math:`T` steps.
        objective: The reward of final latents.
        prompts: The :math:`B` prompts, the same in every estimate.
    """

    chain: Chain
    objective: Objective
    prompts: Sequence[str]

    def noises(self, seed: int) -> Tensor:
        r"""Draws the noises of a rollout in the type of the trained weights, with shape :math:`(T + 1, B, *)`."""
        model = self.chain.model
        weight = next(iter(model.trainable.values()))
        shape = (self.chain.steps + 1, len(self.prompts), *model.latent_shape(model.size))
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator, dtype=weight.dtype).to(model.device)

    def gradient(self, estimator: Estimator, seed: int) -> Tensor:
        r"""Returns one estimate :math:`\hat g` of the gradient, flat, with shape :math:`(d)`."""
        weights = list(self.chain.model.trainable.values())
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        rollout = estimator.rollout(self.chain, self.prompts, self.noises(seed), self.objective, seed)
        for term in estimator.terms(rollout):
            term.loss.backward()
            del term  # its graph must be gone before the next is built
        return torch.cat([-weight.grad.flatten() for weight in weights if weight.grad is not None])

    def gradients(self, estimator: Estimator, seeds: Sequence[int]) -> Tensor:
        r"""Returns the estimates of :math:`n` seeds, with shape :math:`(n, d)`."""
        return torch.stack([self.gradient(estimator, seed) for seed in seeds])

    def rewards(self, seed: int) -> Tensor:
        r"""Returns the rewards of the rollout of a seed, with shape :math:`(B)`."""
        trajectory = self.chain.sample(self.chain.encode(self.prompts), self.noises(seed))
        return Rollout(self.chain, trajectory, self.objective, self.prompts, seed).rewards
