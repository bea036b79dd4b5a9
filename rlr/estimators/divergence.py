r"""The divergence of the chain's paths from those of the base model, step by step.

Write :math:`\mu_t(x; \theta)` for the mean of step :math:`t` and :math:`\mu_t^0(x)` for that of the base model. Then

.. math:: D(\theta) = E\Bigl[\sum_t D_t(x_t; \theta)\Bigr], \qquad
    D_t(x; \theta) = \mathrm{KL}\bigl(\mathcal{N}(\mu_t(x; \theta), \sigma_t^2 I) \,\|\, \mathcal{N}(\mu_t^0(x), \sigma_t^2 I)\bigr)
    = \frac{|\mu_t(x; \theta) - \mu_t^0(x)|^2}{2 \sigma_t^2}

over the steps with :math:`\sigma_t > 0`, on paths of the current model. Where all steps have noise, :math:`D` is the divergence
of whole paths :math:`x_T, \dots, x_0` from those of the base model, and so at least that of the samples :math:`x_0`. A
deterministic step has no finite divergence and is left out.

Since :math:`\theta` determines both the steps and the states in which they are taken, the gradient has two parts,

.. math:: \nabla D = \underbrace{E\Bigl[\sum_t \nabla_\theta D_t(x_t; \theta)\Bigr]}_{\text{direct: states are constants}}
    + \underbrace{E\Bigl[\sum_t \Bigl(\sum_{u < t} D_u(x_u; \theta)\Bigr) \nabla_\theta \log p_\theta(x_{t-1} \mid x_t)\Bigr]}_{
    \text{through the states}}

and :class:`Penalty` estimates the first part, or both. The first part alone has a small variance and is not the gradient of
:math:`D`: it ignores the effect of a step on the divergence of later steps.

References:
    | DPOK: Reinforcement Learning for Fine-tuning Text-to-Image Diffusion Models (Fan et al., 2023)
    | https://arxiv.org/abs/2305.16381
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from rlr.chain import Chain, Trajectory
from rlr.estimators.advantages import LeaveOneOut
from rlr.estimators.base import Term
from rlr.estimators.segments import check_stochastic
from rlr.gaussian import Gaussian
from rlr.rollout import Rollout


@torch.no_grad()
def base_mean(
    chain: Chain, trajectory: Trajectory, t: int, reference: AbstractContextManager[None] | None = None
) -> Tensor:
    r"""Returns :math:`\mu_t^0(x_t)` in the recorded states, with shape :math:`(B, *)`; ``reference`` may be another model's."""
    with reference or chain.model.reference():
        return chain.transition(trajectory.states[t], t, trajectory.condition).mean


@torch.no_grad()
def path_divergence(rollout: Rollout) -> Tensor:
    r"""Returns :math:`\sum_t D_t(x_t; \theta)` of a rollout, with shape :math:`(B)`.

    It evaluates the base model only: the current means are :math:`\mu_t = x_{t-1} - \sigma_t z_{t-1}`. They belong to the weights
    with which the rollout was recorded: shifted weights in a one-point zeroth-order rollout. Rounded states do not determine
    their means, which cost a pass of the current model a step.
    """
    chain, trajectory = rollout.chain, rollout.trajectory
    divergence = torch.zeros(len(rollout), device=trajectory.states.device)
    for t in chain.noisy_steps:
        std = chain.std(t)
        if chain.storage.bfloat16:
            mean = chain.transition(trajectory.states[t], t, trajectory.condition).mean
        else:
            mean = trajectory.states[t - 1] - std * trajectory.noises[t - 1]
        divergence = divergence + Gaussian(mean, std).divergence(base_mean(chain, trajectory, t))
    return divergence


class Penalty:
    r"""Surrogate losses for :math:`\beta \nabla D`, one noisy step at a time, to be added to those of any estimator.

    The loss of step :math:`t` is :math:`\beta D_t(x_t; \theta)` with the recorded :math:`x_t`. Each loss costs a pass of the base
    model and a pass of the current model with gradient.

    Args:
        weight: The weight :math:`\beta > 0`, in units of the reward per nat.
        full: Whether to add the part through the states, :math:`\beta \, (\sum_{u < t} D_u - b) \log p_\theta(x_{t-1} \mid x_t)`
            with the leave-one-out mean :math:`b`, which makes the gradient of :math:`D` unbiased. It costs no further pass and
            has the variance of a likelihood ratio; it needs two samples, and rollouts of the current weights (one-point zeroth
            order has rollouts of shifted weights).
    """

    def __init__(self, weight: float, full: bool = False) -> None:
        if not weight > 0:
            raise ValueError(f"penalty.weight: expected a positive number, got {weight}")
        self.weight = weight
        self.full = full

    def check(self, chain: Chain) -> None:
        """Raises a ``ValueError`` that names the remedy if there is no base model or no noise."""
        steps = chain.noisy_steps
        if not steps:
            sampler = type(chain.sampler).__name__
            raise ValueError(
                f"penalty: the divergence from the base model needs steps with noise, and {sampler} has no noise (σ = 0); set "
                f"{sampler}'s eta (or noise level) above 0, or penalty to null"
            )
        if self.full:
            check_stochastic(chain, range(steps[0] - 1, chain.steps), "penalty.full")
        try:
            with chain.model.reference():
                return
        except ValueError as error:
            raise ValueError(f"penalty: the divergence is from the base model, and {error}") from error

    def begin(self, rollouts: Sequence[Rollout], number: int = 0) -> None:
        """Is called with the rollouts of a round before its updates, by all ranks together.

        Args:
            rollouts: The rollouts.
            number: The number of rounds before this one.
        """

    def sample_weights(self, rollout: Rollout) -> Tensor | None:
        r"""Returns a factor for the loss of each sample, with shape :math:`(B)`; None, the default, is 1."""
        return None

    def reference(self, chain: Chain) -> AbstractContextManager[None]:
        """Returns a context within which the chain is that of the reference; by default that of the base model."""
        return chain.model.reference()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that is kept from one round to the next; none by default."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        r"""Yields the terms; the metric ``kl/path`` of each is the batch's mean of :math:`D_t`."""
        later = torch.zeros(len(rollout), device=rollout.trajectory.states.device)
        # from the last step up, because a term needs the divergences of later steps
        for t in rollout.chain.noisy_steps:
            term, distance = self._term(rollout, t, later)
            yield term
            del term  # its graph must be gone before the next is built
            later = later + distance

    def _term(self, rollout: Rollout, t: int, later: Tensor) -> tuple[Term, Tensor]:
        r"""Returns the term of step :math:`t`, and :math:`D_t` without a graph, with shape :math:`(B)`."""
        base = base_mean(rollout.chain, rollout.trajectory, t, self.reference(rollout.chain))
        transition = rollout.replay(t, t - 1)
        distance = transition.divergence(base)
        loss = distance
        if self.full:
            log_probs = transition.log_prob(rollout.trajectory.states[t - 1])
            loss = loss + LeaveOneOut().advantages(later) * log_probs
        weights = self.sample_weights(rollout)
        metrics = {"kl/path": distance.detach().mean()}
        loss = loss if weights is None else weights * loss
        return Term("kl", self.weight * loss.mean(), (t,), metrics), distance.detach()
