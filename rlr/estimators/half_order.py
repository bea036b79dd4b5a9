r"""Half order: a likelihood ratio at the end of a sub-chain, backpropagated through that sub-chain alone.

Run steps :math:`j + h, \dots, j + 1` again *with gradient, on their recorded noises*. The mean :math:`M` of the last one
depends on the weights through all :math:`h` of them, and

.. math:: \hat g = (R(x_0) - b) \, \nabla_\theta \log \mathcal{N}(x_j ; M(x_{j+h}; \theta), \sigma_{j+1}^2)

estimates :math:`g_{j+h} + \dots + g_{j+1}` without bias, from a reward that is only a number. :math:`h = 1` is REINFORCE.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from rlr.chain import Chain, Trajectory
from rlr.estimators.advantages import Baseline, LeaveOneOut
from rlr.estimators.base import Estimator, Objective, Term, score
from rlr.estimators.control_variate import LookAhead
from rlr.estimators.segments import Segment, Span, check_span, check_stochastic, partition, reach
from rlr.seeding import Stream, spawn


def half_order(
    chain: Chain,
    trajectory: Trajectory,
    advantages: Tensor,
    segment: Segment,
    rewards: Tensor,
    weight: float = 1.0,
) -> Term:
    r"""Returns the half-order term :math:`A \log p_\theta(x_j \mid x_{j+h})` of a segment, times ``weight``.

    Args:
        chain: The chain.
        trajectory: The recorded roll-out.
        advantages: The :math:`A_i = R_i - b_i`, with shape :math:`(B)`.
        segment: The segment :math:`x_{j+h} \to x_j`.
        rewards: The rewards :math:`R_i`, for the record.
        weight: A factor on the term.
    """
    ratio = chain.replay(trajectory, *segment).log_prob(trajectory.states[segment.stop])
    return Term("half_order", -weight * (advantages * ratio).mean(), segment.steps, rewards)


class HalfOrder(Estimator):
    r"""Likelihood ratios over the whole chain, cut into segments of length :math:`h`.

    ``HalfOrder(length=1)`` is REINFORCE over every step (the score-function form of DDPO).

    References:
        | Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning (Williams, 1992)
        | Training Diffusion Models with Reinforcement Learning (Black et al., 2023)
        | https://arxiv.org/abs/2305.13301

    Args:
        length: The length :math:`h \geq 1` of a segment.
        segments: How many segments :math:`m` one update draws, without replacement; each then counts
            :math:`n / m` times for the :math:`n` there are. By default all.
        spare: The last steps of the chain that are left to others: covers steps :math:`T, \dots,` ``spare`` + 1.
        baseline: The baseline; by default :class:`~rlr.estimators.advantages.LeaveOneOut`.
        control: A control variate, which needs a differentiable reward; by default none.
        span: The only steps to cover, first and last (of 50 steps, ``[33, 17]`` is the middle third); by default all
            but the spared ones. The gradients of other steps are then not estimated.
    """

    def __init__(
        self,
        length: int = 1,
        segments: int | None = None,
        spare: int = 0,
        baseline: Baseline | None = None,
        control: LookAhead | None = None,
        span: Span | None = None,
    ) -> None:
        if length < 1 or spare < 0 or (segments is not None and segments < 1):
            raise ValueError(
                "HalfOrder needs length >= 1, segments >= 1 and spare >= 0, "
                f"and got length={length}, segments={segments}, spare={spare}"
            )
        self.length = length
        self.segments = segments
        self.spare = spare
        self.baseline = baseline or LeaveOneOut()
        self.control = control
        self.span = span

    @property
    def differentiable(self) -> bool:
        return self.control is not None

    def check(self, chain: Chain) -> None:
        if self.length > chain.steps - self.spare:
            raise ValueError(
                f"HalfOrder(length={self.length}) does not fit the {chain.steps - self.spare} steps it is to cover; "
                f"set length to {chain.steps - self.spare} at most, or raise the sampler's steps"
            )
        check_span(chain, self.spare, self.span, self.length, "HalfOrder")
        check_stochastic(chain, [s.stop for s in self.partition(chain)], "HalfOrder")

    def losses(self, chain: Chain, trajectory: Trajectory, objective: Objective) -> Iterator[Term]:
        rewards = score(objective, trajectory.states[0])
        yield from self.terms(chain, trajectory, objective, rewards)

    def terms(
        self, chain: Chain, trajectory: Trajectory, objective: Objective, rewards: Tensor, weight: float = 1.0
    ) -> Iterator[Term]:
        """Yields one term a segment, given the rewards of the roll-out."""
        everything = self.partition(chain)
        chosen = self._choose(everything, trajectory.seed)
        weight = weight * len(everything) / len(chosen)
        yield from self.over(chosen, chain, trajectory, objective, rewards, weight)

    def over(
        self,
        segments: list[Segment],
        chain: Chain,
        trajectory: Trajectory,
        objective: Objective,
        rewards: Tensor,
        weight: float = 1.0,
    ) -> Iterator[Term]:
        """Yields one term for each of the given segments."""
        advantages = self.baseline.advantages(rewards) if self.control is None else None
        for segment in segments:
            if self.control is None:
                assert advantages is not None
                yield half_order(chain, trajectory, advantages, segment, rewards, weight)
            else:
                yield self.control.term(chain, trajectory, objective, rewards, segment, weight)

    def partition(self, chain: Chain) -> list[Segment]:
        """Returns the segments that cover the chain, or the span of it."""
        return partition(*reach(chain, self.spare, self.span), self.length)

    def _choose(self, segments: list[Segment], seed: int) -> list[Segment]:
        if self.segments is None or self.segments >= len(segments):
            return segments
        order = torch.randperm(len(segments), generator=torch.Generator().manual_seed(spawn(seed, Stream.SEGMENT)))
        return [segments[i] for i in sorted(order[: self.segments].tolist())]

    def state_dict(self) -> dict[str, object]:
        return {"baseline": self.baseline.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.baseline.load_state_dict(state["baseline"])  # type: ignore[arg-type]
