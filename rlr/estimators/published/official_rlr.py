r"""The estimate of the released code of the RLR paper, for comparison. It is not the estimator of the paper.

.. math:: L = -w_1 \, \overline{R(\alpha_0 \hat x_0 + \sigma_0 \hat z_1)} + w_h \sum_{k = 1}^{m} \overline{
    \max\bigl(-A \rho_{t_k}, \; -A \, \mathrm{clip}(\rho_{t_k}, 1 - c, 1 + c)\bigr)}, \qquad A_i = \frac{R_i - \bar R}{s_R}

First order covers the last step, which is a DDIM step with :math:`\eta = 0` for every sampler. It is not the mean of a step with
noise, in which the predicted noise :math:`\hat z_1` has a smaller factor than :math:`\sigma_0`. The :math:`m` other terms are
likelihood ratios of *single* steps :math:`t_k`, uniform on :math:`1, \dots, T` and drawn with replacement, not of a sub-chain.
The likelihood is the *mean* over the latent's dimensions. There is no zeroth order. A draw of the last step, or of
another step without noise, gives no term. The steps are neither covered once nor weighted, so the estimate is biased in scale and
direction.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators.base import Estimator, Term
from rlr.estimators.replay import Recorded, mean_log_prob, record
from rlr.estimators.segments import check_stochastic
from rlr.estimators.statistics import RoundStatistics, Statistics
from rlr.estimators.surrogates import ImportanceRatio, Surrogate
from rlr.models.base import Condition
from rlr.rollout import Rollout
from rlr.samplers import DDIM
from rlr.seeding import Stream


class OfficialRLR(Estimator):
    r"""The released code's gradient (RTkenny/RLR-Opimtizer, commit aff15b1, which sums its terms).

    The released code maps the pixels to [0, 1] twice before it scores them; :class:`~rlr.rewards.doubled.DoubledRange` around a
    reward reproduces this.

    References:
        | https://github.com/RTkenny/RLR-Opimtizer

    Args:
        draws: The number :math:`m` of single-step terms, ``chain_len`` in the released code.
        first_weight: The weight :math:`w_1` of the last step, ``loss_coeff`` in the released code.
        half_weight: The weight :math:`w_h` of the other terms, ``ho_loss_coeff`` in the released code.
        surrogate: The loss of a single step; by default the ratio clipped to 1 ± 1e-4, its logarithm clamped at ± 20.
        statistics: The statistics that turn rewards into advantages; by default the batch's mean and standard deviation.
    """

    shares_rollouts = False

    def __init__(
        self,
        draws: int = 1,
        first_weight: float = 0.05,
        half_weight: float = 1.0,
        surrogate: Surrogate | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        if draws < 0:
            raise ValueError(f"OfficialRLR.draws: expected at least 0, got {draws}")
        self.draws = draws
        self.first_weight = first_weight
        self.half_weight = half_weight
        self.surrogate = surrogate or ImportanceRatio(limit=20.0)
        self.statistics = statistics or RoundStatistics()

    @property
    def differentiable(self) -> bool:
        return True

    def check(self, chain: Chain) -> None:
        if not set(chain.noisy_steps) - {1}:
            check_stochastic(chain, range(1, chain.steps), "OfficialRLR")

    def steps(self, rollout: Rollout) -> list[int]:
        r"""Draws the :math:`t_k`."""
        high = rollout.chain.steps + 1
        return torch.randint(1, high, (self.draws,), generator=rollout.generator(Stream.SEGMENT)).tolist()

    def record(self, chain: Chain, condition: Condition, noises: Tensor, seed: int) -> Recorded:
        return record(chain, condition, noises)

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        # the released code scores and reports the sample of this last step
        rewards = rollout.score_recorded(deterministic(rollout.chain).replay(rollout.trajectory, 1, 0).mean)
        yield Term("first_order", -self.first_weight * rewards.mean(), (1,))
        del rewards  # their graph must be gone before the next is built
        if self.draws:
            yield from self._drawn(rollout)

    def _drawn(self, rollout: Rollout) -> Iterator[Term]:
        """Yields the terms of the drawn steps."""
        (advantages,) = self.statistics.advantages([rollout.prompts], [rollout.rewards])
        for t in self.steps(rollout):
            if t > 1 and rollout.chain.std(t) > 0:
                yield self._single(rollout, advantages, t)

    def _single(self, rollout: Rollout, advantages: Tensor, t: int) -> Term:
        trajectory = rollout.trajectory
        assert isinstance(trajectory, Recorded)
        log_probs = mean_log_prob(rollout.replay(t, t - 1), trajectory.states[t - 1])
        loss = self.surrogate.loss(advantages, log_probs, trajectory.log_probs[t - 1])
        return Term("half_order", self.half_weight * loss.mean(), (t,))

    def state_dict(self) -> dict[str, object]:
        return {"statistics": self.statistics.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.statistics.load_state_dict(state["statistics"])  # type: ignore[arg-type]


def deterministic(chain: Chain) -> Chain:
    r"""Returns the chain of the same model with DDIM and :math:`\eta = 0`."""
    return chain.with_sampler(DDIM(chain.steps, eta=0.0))
