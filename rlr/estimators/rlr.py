r"""The recursive likelihood ratio estimator: first, half and zeroth order on disjoint sets of steps.

Draw :math:`j` uniformly and split the chain into three sets of steps. With :math:`k = 1` and all weights 1 this is Eq. 11 of the
paper:

.. math::
    \hat g = \underbrace{\nabla_{\theta_{1 \dots k}} R(x_0)}_{\text{first order}}
    + \underbrace{(R - b) \, \nabla_{\theta_{j+1 \dots j+h}} \log \mathcal{N}(x_j; M(x_{j+h}), \sigma_{j+1}^2)}_{\text{half order}}
    + \underbrace{\textstyle\sum_{t \in C} (R_+ - R_-) \, \varepsilon / 2s}_{\text{zeroth order}}

with :math:`C = \{1, \dots, T\} \setminus \{1, \dots, k\} \setminus \{j+1, \dots, j+h\}`. The three sets are disjoint and
cover the chain for every :math:`j`, so no importance weight is needed and the estimate is unbiased (in :math:`C`, for the
smoothed objective).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from rlr.chain import Chain, Trajectory
from rlr.estimators.advantages import Baseline
from rlr.estimators.base import Estimator, Term
from rlr.estimators.control_variate import LookAhead
from rlr.estimators.first_order import first_order
from rlr.estimators.half_order import HalfOrder
from rlr.estimators.segments import Segment, StepRange, check_range, check_stochastic, covered, noisy_runs
from rlr.estimators.zeroth_order import ZerothOrder
from rlr.models.base import Condition
from rlr.rollout import Rollout
from rlr.seeding import Stream, spawn


class RLR(Estimator):
    r"""The recursive likelihood ratio optimizer's gradient.

    =====================================  ===================================================
    the paper's ablation                   here
    =====================================  ===================================================
    V1, first order only                   ``half=False, zeroth=False``
    V2, without zeroth order               ``zeroth=False``
    V3, without half order                 ``half=False``: zeroth order takes the sub-chain too
    =====================================  ===================================================

    V1 and V2 are biased, because they do not cover all steps. The sub-chain is drawn among steps with noise; where a sampler has
    steps without noise, zeroth order covers these, and the estimate stays unbiased.

    References:
        | Zeroth-order Informed Fine-Tuning for Diffusion Model: A Recursive Likelihood Ratio Optimizer (Ren et al., 2025), Eq. 11
        | https://arxiv.org/abs/2502.00639

    Args:
        length: The length :math:`h` of the half-order sub-chain.
        steps: The number :math:`k` of steps covered by first order. 0 leaves out first order; the reward then need not be
            differentiable.
        half: Whether there is a half-order term.
        zeroth: The zeroth-order term; True is ``ZerothOrder()``, False leaves it out.
        baseline: The baseline of the half-order term; by default the leave-one-out mean.
        control: The control variate of the half-order term; by default none.
        first_weight: The weight of the first-order term; 1 for an unbiased estimate.
        half_weight: The weight of the half-order term; 1 for an unbiased estimate.
        zeroth_weight: The weight of the zeroth-order term; 1 for an unbiased estimate.
        step_range: The first and the last of the steps from which the sub-chain is drawn, such as those of one stage of a staged
            prompt (of 50 steps, ``[33, 17]`` is the middle third); by default all that first order does not cover. Zeroth
            order covers the remaining steps, so the estimate stays unbiased.
    """

    shares_rollouts = False

    def __init__(
        self,
        length: int = 4,
        steps: int = 1,
        half: bool = True,
        zeroth: ZerothOrder | bool = True,
        baseline: Baseline | None = None,
        control: LookAhead | None = None,
        first_weight: float = 1.0,
        half_weight: float = 1.0,
        zeroth_weight: float = 1.0,
        step_range: StepRange | None = None,
    ) -> None:
        if steps < 0:
            raise ValueError(
                f"RLR.steps: expected at least 0, got {steps}; set the number of steps that first order covers"
            )
        self.steps = steps
        self.half = HalfOrder(length, baseline=baseline, control=control) if half else None
        self.zeroth = ZerothOrder() if zeroth is True else zeroth or None
        self.length = length
        self.first_weight = first_weight
        self.half_weight = half_weight
        self.zeroth_weight = zeroth_weight
        self.step_range = step_range
        if not (steps or self.half or self.zeroth):
            raise ValueError(
                "RLR: expected at least one term, got steps=0, half=False, zeroth=False; set steps >= 1, half or zeroth"
            )
        if step_range is not None and not half:
            raise ValueError(
                "RLR.step_range applies to the half-order term, and half is false; leave out step_range, or set half to true"
            )

    @property
    def differentiable(self) -> bool:
        return self.steps > 0 or (self.half is not None and self.half.differentiable)

    def check(self, chain: Chain) -> None:
        needed = self.steps + (self.length if self.half else 0)
        if needed > chain.steps:
            raise ValueError(
                f"RLR: expected first order (steps={self.steps}) and sub-chain (length={self.length}) within the chain "
                f"of {chain.steps} steps, found {needed} steps; set length to {chain.steps - self.steps} at most"
            )
        if self.half:
            check_range(chain, self.steps, self.step_range, self.length, "RLR")
            self._check_noise(chain)
        if self.zeroth:
            self.zeroth.check(chain)

    def segment(self, chain: Chain, seed: int) -> Segment:
        r"""Returns the half-order sub-chain of a rollout.

        :math:`j` is uniform on :math:`k, \dots, T - h`, or in the range, where all :math:`h` steps have noise.
        """
        stops = self._stops(chain)
        generator = torch.Generator().manual_seed(spawn(seed, Stream.SEGMENT))
        j = stops[int(torch.randint(len(stops), (), generator=generator))]
        return Segment(j + self.length, j)

    def _stops(self, chain: Chain) -> list[int]:
        r"""The states :math:`x_j` in which the sub-chain may end."""
        runs = noisy_runs(chain, covered(chain, self.steps, self.step_range))
        return sorted(j for run in runs for j in range(run.stop, run.start - self.length + 1))

    def _check_noise(self, chain: Chain) -> None:
        if self._stops(chain):
            return
        part = covered(chain, self.steps, self.step_range)
        if not noisy_runs(chain, part):
            check_stochastic(chain, range(part.stop, part.start - self.length + 1), "RLR's half order")
        raise ValueError(
            f"RLR: no sub-chain of length={self.length} has noise in all of its steps; set length lower, or noise in more steps"
        )

    def rest(self, chain: Chain, seed: int) -> tuple[int, ...]:
        r"""Returns the steps :math:`C` of the zeroth-order term."""
        sub_chain = self.segment(chain, seed).steps if self.half else ()
        return tuple(t for t in range(chain.steps, self.steps, -1) if t not in sub_chain)

    def record(self, chain: Chain, condition: Condition, noises: Tensor, seed: int) -> Trajectory:
        if self.zeroth is None:
            return chain.sample(condition, noises)
        return self.zeroth.record_over(self.rest(chain, seed), chain, condition, noises, seed)

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        if self.steps:
            yield first_order(rollout, self.steps, self.first_weight)
        if self.half:
            segment = self.segment(rollout.chain, rollout.seed)
            yield from self.half.terms_of({segment: 1.0}, rollout, self.half_weight)
        if self.zeroth and (rest := self.rest(rollout.chain, rollout.seed)):
            yield self.zeroth.term(rest, rollout, self.zeroth_weight)

    def metrics(self) -> dict[str, float]:
        return self.half.metrics() if self.half else {}

    def state_dict(self) -> dict[str, object]:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])  # type: ignore[arg-type]

    def _parts(self) -> dict[str, Estimator]:
        parts = {"half": self.half, "zeroth": self.zeroth}
        return {name: part for name, part in parts.items() if part is not None}
