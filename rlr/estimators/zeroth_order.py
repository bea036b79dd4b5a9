r"""Zeroth order: shift the weights in a set :math:`C` of steps and compare rewards; it needs no graph and no differentiable reward.

Antithetic (two-point), with the same noises in both samples as in the recorded one:

.. math:: \hat g = \frac{R_+ - R_-}{2 s} \, \varepsilon

One-point, in which the recorded rollout *itself* is perturbed in :math:`C`, for all other terms as well:

.. math:: \hat g = \frac{R - b}{s} \, \varepsilon

Both are unbiased for :math:`\sum_{t \in C} g_t` of the objective smoothed by :math:`\mathcal{N}(0, s^2 I)`. The variance of one
direction is about :math:`d \|g\|^2` for :math:`d` weights: use many directions, or few weights.
"""

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from rlr.chain import Chain, Trajectory, Within, unchanged
from rlr.distributed import local
from rlr.estimators.advantages import Baseline
from rlr.estimators.base import Estimator, Term
from rlr.estimators.perturbation import DirectionPerSample, Perturbation, SharedDirection
from rlr.models.base import Condition, DiffusionModel
from rlr.rewards.base import Scores
from rlr.rollout import Rollout
from rlr.scoring import Pending
from rlr.seeding import Stream, spawn


class ZerothOrder(Estimator):
    r"""Random search over the weights in a set of steps; by itself it covers all steps (evolution strategies).

    References:
        | Random Gradient-Free Minimization of Convex Functions (Nesterov & Spokoiny, 2017)
        | Evolution Strategies as a Scalable Alternative to Reinforcement Learning (Salimans et al., 2017)
        | https://arxiv.org/abs/1703.03864

    Args:
        directions: The number :math:`n` of directions (of the batch, or of each sample) over which the estimate is averaged.
        antithetic: Whether to use the two-point form.
        scale: The size :math:`s > 0` of the shift.
        per_step: Whether each step has its own :math:`\varepsilon_t`, as in the paper; the default, one
            :math:`\varepsilon` shared by all of :math:`C`, has the same mean and :math:`|C|` times less variance.
        perturbation: The perturbation of the weights; by default each sample has its own direction if all trainable
            weights belong to linear layers (LoRA), and otherwise all samples share one.
        baseline: The :math:`b` of the one-point form; by default the reward of the unperturbed chain on the same
            noises, which costs a second pass of the chain.
    """

    shares_rollouts = False

    def __init__(
        self,
        directions: int = 1,
        antithetic: bool = True,
        scale: float = 1e-2,
        per_step: bool = False,
        perturbation: Perturbation | None = None,
        baseline: Baseline | None = None,
    ) -> None:
        if directions < 1 or not scale > 0:
            raise ValueError(f"ZerothOrder needs directions >= 1 and scale > 0, and got {directions} and {scale}")
        if directions > 1 and not antithetic:
            raise ValueError(
                f"one-point ZerothOrder perturbs the recorded rollout itself and has one direction, not {directions}; "
                "set directions to 1 or antithetic to true"
            )
        self.directions = directions
        self.antithetic = antithetic
        self.scale = scale
        self.per_step = per_step
        self.perturbation = perturbation
        self.baseline = baseline

    def check(self, chain: Chain) -> None:
        perturbation = self._perturbation(chain.model)
        perturbation.check(chain.model)
        if self.baseline is not None and self.baseline.centered and perturbation.shared:
            raise ValueError(
                f"{type(self.baseline).__name__} cancels a direction that the whole batch shares, to exactly zero, because its "
                "advantages sum to zero; leave ZerothOrder's baseline unset, or use DirectionPerSample"
            )

    def record(self, chain: Chain, condition: Condition, noises: Tensor, seed: int) -> Trajectory:
        return self.record_over(range(1, chain.steps + 1), chain, condition, noises, seed)

    def record_over(
        self, steps: Collection[int], chain: Chain, condition: Condition, noises: Tensor, seed: int
    ) -> Trajectory:
        """Records a trajectory, in the one-point form with shifted weights in ``steps``."""
        if self.antithetic:
            return chain.sample(condition, noises)
        return chain.sample(condition, noises, self._within(chain, steps, self.scale, seed, 0, noises.shape[1]))

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        yield self.term(range(1, rollout.chain.steps + 1), rollout)

    def term(self, steps: Collection[int], rollout: Rollout, weight: float = 1.0) -> Term:
        r"""Returns the zeroth-order term of the steps :math:`C`, times ``weight``.

        Its loss is :math:`-\langle \theta, \hat g \rangle`, whose gradient is :math:`-\hat g`.
        """
        coefficients = self._antithetic if self.antithetic else self._one_point
        model = rollout.chain.model
        perturbation = self._perturbation(model)
        inner: Tensor = torch.zeros((), device=rollout.trajectory.states.device)
        for k in range(self.directions):
            c = coefficients(steps, rollout, k)
            for seed in sorted({self._seed(rollout.seed, k, t) for t in steps}):
                g = perturbation.combine(model, c, seed)
                inner = inner + sum((local(w) * local(g[name])).sum() for name, w in model.trainable.items())
        return Term("zeroth_order", -weight / self.directions * inner, tuple(sorted(steps, reverse=True)))

    def _antithetic(self, steps: Collection[int], rollout: Rollout, k: int) -> Tensor:
        r"""Returns :math:`(R_+ - R_-) / 2s` of each sample."""
        # the second sample is drawn while the first one is scored
        pending = [
            self._begin(rollout, self._within(rollout.chain, steps, s, rollout.seed, k, len(rollout)))
            for s in (self.scale, -self.scale)
        ]
        plus, minus = (scores().objective for scores in pending)
        return (plus - minus) / (2 * self.scale)

    def _one_point(self, steps: Collection[int], rollout: Rollout, k: int) -> Tensor:
        r"""Returns :math:`(R - b) / s` of each sample."""
        if self.baseline is not None:
            return self.baseline.advantages(rollout.rewards) / self.scale
        rollout.begin_scores()
        plain = self._begin(rollout, unchanged)
        return (rollout.rewards - plain().objective) / self.scale

    @staticmethod
    @torch.no_grad()
    def _begin(rollout: Rollout, within: Within) -> Pending[Scores]:
        return rollout.begin(rollout.resample(within))

    def _within(self, chain: Chain, steps: Collection[int], scale: float, seed: int, k: int, batch: int) -> Within:
        """Returns the contexts that shift the weights in ``steps`` and do not change them in other steps."""
        perturbation, shifted = self._perturbation(chain.model), frozenset(steps)

        def within(t: int) -> AbstractContextManager[object]:
            if t not in shifted:
                return nullcontext()
            return perturbation.shifted(chain.model, scale, self._seed(seed, k, t), batch)

        return within

    def _seed(self, seed: int, k: int, t: int) -> int:
        r"""Returns the seed of direction ``k`` in step :math:`t`; it is the same for all steps unless ``per_step`` is set."""
        return spawn(seed, Stream.DIRECTION, k, t if self.per_step else 0)

    def _perturbation(self, model: DiffusionModel) -> Perturbation:
        if self.perturbation is not None:
            return self.perturbation
        return DirectionPerSample() if DirectionPerSample.serves(model) else SharedDirection()

    def state_dict(self) -> dict[str, object]:
        return {"baseline": self.baseline.state_dict()} if self.baseline else {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        if self.baseline:
            self.baseline.load_state_dict(state["baseline"])  # type: ignore[arg-type]
