"""What a gradient is estimated of: a chain, and the batches that estimates are made from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators.base import Estimator, Term
from rlr.rollout import Objective, Rollout


@dataclass(frozen=True)
class Batch:
    r"""What one estimate is made from.

    Args:
        prompts: The :math:`B` prompts.
        noises: The noises, with shape :math:`(T + 1, B, *)`.
        objective: The reward of final latents.
        seed: Decides what an estimator draws besides the noises.
    """

    prompts: Sequence[str]
    noises: Tensor
    objective: Objective
    seed: int


class Estimand(ABC):
    r"""The gradient :math:`g = \nabla_\theta E[R(x_0)]` of a chain, and the batches that its estimates are made from."""

    chain: Chain
    """The chain of :math:`T` steps."""

    @abstractmethod
    def batch(self, number: int) -> Batch:
        """Returns the batch of a number; the same number gives the same batch."""

    def saving(self) -> AbstractContextManager[object]:
        """Returns the context in which graphs are built; by default one that changes nothing."""
        return nullcontext()

    def estimate(self, estimator: Estimator, number: int) -> Tensor:
        r"""Returns the estimate :math:`\hat g` from a batch, flat, with shape :math:`(d)`."""
        batch = self.batch(number)
        weights = list(self.chain.model.trainable.values())
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        rollout = estimator.rollout(self.chain, batch.prompts, batch.noises, batch.objective, batch.seed)
        terms = estimator.terms(rollout)
        while (term := self._next(terms)) is not None:
            term.backward()
            del term  # its graph must be gone before the next is built
        return torch.cat([-weight.grad.flatten() for weight in weights if weight.grad is not None])

    def _next(self, terms: Iterator[Term]) -> Term | None:
        with self.saving():
            return next(terms, None)

    def rollout(self, number: int) -> Rollout:
        """Returns the rollout of a batch, recorded as the chain samples it."""
        batch = self.batch(number)
        trajectory = self.chain.sample(self.chain.encode(batch.prompts), batch.noises)
        return Rollout(self.chain, trajectory, batch.objective, batch.prompts, batch.seed)


@dataclass(frozen=True)
class Problem(Estimand):
    r"""The gradient :math:`g = \nabla_\theta E[R(x_0)]`, for fixed prompts; the number of a batch is the seed of its noises.

    Args:
        chain: The chain of :math:`T` steps.
        objective: The reward of final latents.
        prompts: The :math:`B` prompts, the same in every estimate.
    """

    chain: Chain
    objective: Objective
    prompts: Sequence[str]

    def batch(self, number: int) -> Batch:
        return Batch(self.prompts, self.noises(number), self.objective, number)

    def noises(self, seed: int) -> Tensor:
        r"""Draws the noises of a rollout in the type of the trained weights, with shape :math:`(T + 1, B, *)`."""
        model = self.chain.model
        weight = next(iter(model.trainable.values()))
        shape = (self.chain.steps + 1, len(self.prompts), *model.latent_shape(model.size))
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator, dtype=weight.dtype).to(model.device)

    def gradient(self, estimator: Estimator, seed: int) -> Tensor:
        r"""Returns one estimate :math:`\hat g` of the gradient, flat, with shape :math:`(d)`."""
        return self.estimate(estimator, seed)

    def gradients(self, estimator: Estimator, seeds: Sequence[int]) -> Tensor:
        r"""Returns the estimates of :math:`n` seeds, with shape :math:`(n, d)`."""
        return torch.stack([self.gradient(estimator, seed) for seed in seeds])

    def rewards(self, seed: int) -> Tensor:
        r"""Returns the rewards of the rollout of a seed, with shape :math:`(B)`."""
        return self.rollout(seed).rewards
