r"""Denoising diffusion policy optimization: proximal policy optimization of the chain, one step at a time.

Each step is an action. Its log-likelihood :math:`\ell_t` is the **mean** over the latent's :math:`D` dimensions. With
:math:`\rho_t = \exp(\ell_t - \ell_t^0)` for the likelihood :math:`\ell_t^0` under the weights of the rollout,

.. math:: L = \frac{1}{n \, T'} \sum_{i = 1}^{n} \sum_{t \in S_i}
    \max\bigl(-A_i \rho_{i,t}, \; -A_i \, \mathrm{clip}(\rho_{i,t}, 1 - c, 1 + c)\bigr)

is the loss of an update over :math:`n` samples, with :math:`T'` steps :math:`S_i` drawn for each. While the weights are those of
the rollout, :math:`\rho = 1` and the gradient is that of REINFORCE with the advantages :math:`A_i`, divided by :math:`D \, T`.
"""

import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.distributed import gather, rank
from rlr.estimators.base import Term
from rlr.estimators.replay import Minibatch, ReplayEstimator, mean_log_prob
from rlr.estimators.segments import check_stochastic
from rlr.estimators.statistics import PromptStatistics, Statistics
from rlr.estimators.surrogates import ImportanceRatio, Surrogate
from rlr.rollout import Rollout

TOLERANCE = 1e-5
"""The largest difference of a ratio of the first update from 1; a tenth of the published clip range."""


class DDPO(ReplayEstimator):
    r"""Clipped policy gradients over rounds of rollouts, for any reward.

    References:
        | Training Diffusion Models with Reinforcement Learning (Black et al., 2023)
        | https://arxiv.org/abs/2305.13301

    Args:
        num_minibatches: The number of updates of one pass over a round. Each rank splits its own samples, so the minibatches
            depend on the number of ranks.
        epochs: The number of passes over a round.
        minibatch: The number of samples of one backward pass; by default the number of samples of a batch.
        surrogate: The loss; by default ``ImportanceRatio()``. ``ScoreFunction()`` is the score-function form, with one update
            a round.
        statistics: The statistics that turn rewards into advantages; by default ``PromptStatistics()``.
        advantage_clip: The largest absolute value of an advantage; None does not clip.
        timestep_fraction: The share of the steps on which each sample trains, in (0, 1]; the steps are drawn for each update.
        mean_over_steps: Whether the loss is the mean over steps, as published. The sum over steps has a
            gradient that is :math:`T` times as large: that of REINFORCE divided by :math:`D`.
    """

    def __init__(
        self,
        num_minibatches: int = 4,
        epochs: int = 1,
        minibatch: int | None = None,
        surrogate: Surrogate | None = None,
        statistics: Statistics | None = None,
        advantage_clip: float | None = 5.0,
        timestep_fraction: float = 1.0,
        mean_over_steps: bool = True,
    ) -> None:
        super().__init__(num_minibatches, epochs, minibatch)
        self.surrogate = surrogate or ImportanceRatio()
        self.statistics = statistics or PromptStatistics()
        self.advantage_clip = advantage_clip
        self.timestep_fraction = timestep_fraction
        self.mean_over_steps = mean_over_steps
        self._changes: list[Tensor] = []
        self._first: list[Tensor] = []
        self._warned = False
        if not 0 < timestep_fraction <= 1 or (advantage_clip is not None and not advantage_clip > 0):
            raise ValueError(
                "DDPO needs timestep_fraction in (0, 1] and advantage_clip > 0 or None, "
                f"and got {timestep_fraction} and {advantage_clip}"
            )
        if self.surrogate.on_policy and num_minibatches * epochs > 1:
            raise ValueError(
                f"{type(self.surrogate).__name__} holds for the weights of the rollout only, and a round of "
                f"{num_minibatches * epochs} updates changes them; set DDPO's num_minibatches and epochs to 1, or use "
                "ImportanceRatio"
            )

    def check(self, chain: Chain) -> None:
        check_stochastic(chain, range(chain.steps), "DDPO")

    def advantages(self, rollouts: Sequence[Rollout]) -> list[Tensor]:
        found = self.statistics.advantages([r.prompts for r in rollouts], [r.rewards for r in rollouts])
        clip = self.advantage_clip
        return found if clip is None else [a.clamp(-clip, clip) for a in found]

    def minibatch_terms(self, minibatch: Minibatch) -> Iterator[Term]:
        chain = minibatch.rollout.chain
        drawn = self._steps(chain, minibatch)
        for t in range(chain.steps, 0, -1):
            rows = drawn[:, t - 1].nonzero().flatten()
            if len(rows):
                yield self._term(chain, minibatch, t, rows)
        if minibatch.fresh:
            # here and not with the metrics, so that a wrong round is reported before its first update
            self._check_first(farthest(torch.cat(self._first)).exp().item())

    def _term(self, chain: Chain, minibatch: Minibatch, t: int, rows: Tensor) -> Term:
        r"""Returns the term of step :math:`t`, of the samples that train on it."""
        whole = minibatch.trajectory
        trajectory = whole if len(rows) == len(minibatch.rollout) else whole.select(rows)
        log_probs = mean_log_prob(chain.replay(trajectory, t, t - 1), trajectory.states[t - 1])
        recorded = trajectory.log_probs[t - 1]
        self._note((log_probs - recorded).detach(), minibatch.fresh)
        advantages = minibatch.advantages[rows.to(minibatch.advantages.device)]
        loss = self.surrogate.loss(advantages, log_probs, recorded).sum() / len(minibatch.rollout)
        scale = (1 if self.mean_over_steps else chain.steps) / self._count(chain)
        return Term("half_order", scale * loss, (t,))

    def _count(self, chain: Chain) -> int:
        r"""Returns the number :math:`T'` of steps that each sample trains on."""
        return max(1, int(chain.steps * self.timestep_fraction))

    def _steps(self, chain: Chain, minibatch: Minibatch) -> Tensor:
        r"""Returns whether each sample trains on each step :math:`1, \dots, T`, with shape :math:`(b, T)`."""
        b = len(minibatch.rollout)
        generator = torch.Generator().manual_seed(minibatch.rollout.seed)
        # ranks share the seed and draw for each other, so that their samples differ
        draws = torch.rand((rank() + 1) * b, chain.steps, generator=generator, dtype=torch.float32)[-b:]
        return draws.argsort(1) < self._count(chain)

    def _note(self, change: Tensor, fresh: bool) -> None:
        self._changes.append(change)
        if fresh:
            self._first.append(change)

    def metrics(self) -> dict[str, float]:
        r"""Returns :math:`\frac12 E[(\ell - \ell^0)^2]`, the share of ratios outside the clip range, and the first
        update's ratio that is farthest from 1.

        The last is taken over all ranks, which must call this function together.
        """
        if not self._changes:
            return {}
        changes, first = torch.cat(self._changes), torch.cat(self._first or self._changes[:1])
        self._changes, self._first = [], []
        worst = farthest(gather(farthest(first)).flatten()).exp().item()
        return {
            "ddpo/approx_kl": changes.square().mean().item() / 2,
            "ddpo/clip_fraction": self.surrogate.clipped(changes).float().mean().item(),
            "ddpo/ratio_first": worst,
        }

    def _check_first(self, ratio: float) -> None:
        if self._warned or abs(ratio - 1) <= TOLERANCE:
            return
        self._warned = True
        warnings.warn(
            f"a replayed step differs from the recorded step: expected a likelihood ratio of 1 before the first update, got "
            f"{ratio:.6g}; use precision 32-true, minibatches as large as a batch, or a clip range far above the difference",
            stacklevel=2,
        )

    def state_dict(self) -> dict[str, object]:
        return {"statistics": self.statistics.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.statistics.load_state_dict(state["statistics"])  # type: ignore[arg-type]


def farthest(changes: Tensor) -> Tensor:
    """Returns the change that is farthest from 0, with shape (1)."""
    return changes[changes.abs().argmax()].view(1)
