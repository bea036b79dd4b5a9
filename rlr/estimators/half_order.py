r"""Half order: a likelihood ratio at the end of a sub-chain, backpropagated through the sub-chain only.

Replay steps :math:`j + h, \dots, j + 1` *with gradient, on their recorded noises*. The mean :math:`M` of the last of them
depends on the weights through all :math:`h` steps, and

.. math:: \hat g = (R(x_0) - b) \, \nabla_\theta \log \mathcal{N}(x_j ; M(x_{j+h}; \theta), \sigma_{j+1}^2)

estimates :math:`g_{j+h} + \dots + g_{j+1}` without bias, from the value of the reward alone. :math:`h = 1` is REINFORCE.
"""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from rlr.chain import Chain
from rlr.estimators.advantages import Baseline, LeaveOneOut
from rlr.estimators.base import Estimator, Term
from rlr.estimators.control_variate import LookAhead, Predictions
from rlr.estimators.drawing import Drawing, UniformSegments
from rlr.estimators.segments import Segment, StepRange, check_range, check_stochastic, covered, noisy_runs, partition
from rlr.rollout import Rollout
from rlr.seeding import Stream


def half_order(rollout: Rollout, advantages: Tensor, segment: Segment, weight: float = 1.0) -> Term:
    r"""Returns the half-order term :math:`A \log p_\theta(x_j \mid x_{j+h})` of a segment, times ``weight``.

    Args:
        rollout: The rollout.
        advantages: The :math:`A_i = R_i - b_i`, with shape :math:`(B)`.
        segment: The segment :math:`x_{j+h} \to x_j`.
        weight: A factor on the term.
    """
    ratio = rollout.replay(*segment).log_prob(rollout.trajectory.states[segment.stop])
    return Term("half_order", -weight * (advantages * ratio).mean(), segment.steps)


class HalfOrder(Estimator):
    r"""Likelihood ratios over the whole chain, split into segments of length :math:`h`.

    ``HalfOrder(length=1)`` is REINFORCE over every step (the score-function form of DDPO).

    A step without noise has no likelihood ratio. Each run of consecutive steps with noise is split by itself, and the gradients
    of the other steps are not estimated: with a :class:`~rlr.samplers.Windowed` sampler it is that of the window.

    References:
        | Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning (Williams, 1992)
        | Training Diffusion Models with Reinforcement Learning (Black et al., 2023)
        | https://arxiv.org/abs/2305.13301

    Args:
        length: The length :math:`h \geq 1` of a segment.
        segments: The number :math:`m` of segments that one update draws, without replacement. By default all :math:`n`.
        skip_last: The number of last steps of the chain that other terms cover; this one covers steps
            :math:`T, \dots,` ``skip_last`` + 1.
        baseline: The baseline; by default :class:`~rlr.estimators.advantages.LeaveOneOut`.
        control: A control variate, which needs a differentiable reward; None for no control variate.
        step_range: The first and the last of the steps to cover (of 50 steps, ``[33, 17]`` is the middle third); by default all
            but the ``skip_last`` last. The gradients of other steps are then not estimated.
        drawing: How the :math:`m` segments are drawn; by default :class:`~rlr.estimators.drawing.UniformSegments`, which multiplies
            their terms by :math:`n / m`.
    """

    def __init__(
        self,
        length: int = 1,
        segments: int | None = None,
        skip_last: int = 0,
        baseline: Baseline | None = None,
        control: LookAhead | None = None,
        step_range: StepRange | None = None,
        drawing: Drawing | None = None,
    ) -> None:
        if length < 1 or skip_last < 0 or (segments is not None and segments < 1):
            raise ValueError(
                "HalfOrder needs length >= 1, segments >= 1 and skip_last >= 0, "
                f"and got length={length}, segments={segments}, skip_last={skip_last}"
            )
        if drawing is not None and segments is None:
            raise ValueError(
                f"HalfOrder.drawing: {type(drawing).__name__} draws some of the segments, and segments=None covers all of them; "
                "set segments to the number to draw, or leave out drawing"
            )
        self.length = length
        self.segments = segments
        self.skip_last = skip_last
        self.baseline = baseline or LeaveOneOut()
        self.control = control
        self.step_range = step_range
        self.drawing = drawing or UniformSegments()

    @property
    def differentiable(self) -> bool:
        return self.control is not None and self.control.differentiable

    def check(self, chain: Chain) -> None:
        if self.length > chain.steps - self.skip_last:
            raise ValueError(
                f"HalfOrder(length={self.length}) does not fit the {chain.steps - self.skip_last} steps that it covers; "
                f"set length to {chain.steps - self.skip_last} at most, or raise the sampler's steps"
            )
        check_range(chain, self.skip_last, self.step_range, self.length, "HalfOrder")
        if not self.partition(chain):
            part = covered(chain, self.skip_last, self.step_range)
            check_stochastic(chain, [s.stop for s in partition(*part, self.length)], "HalfOrder")

    def terms(self, rollout: Rollout, weight: float = 1.0) -> Iterator[Term]:
        """Yields one term a segment, times ``weight``."""
        yield from self.terms_of(self.draw(rollout), rollout, weight)

    def terms_of(
        self,
        segments: Mapping[Segment, float],
        rollout: Rollout,
        weight: float = 1.0,
        predictions: Predictions | None = None,
    ) -> Iterator[Term]:
        """Yields one term for each of the given segments, times its factor and ``weight``.

        Args:
            segments: The segments, and the factor on the term of each.
            rollout: The rollout.
            weight: A factor on the terms.
            predictions: The predictions of the control variate, where some are known already.
        """
        terms = _scaled(self._terms(list(segments), rollout, weight, predictions), segments)
        yield from self.drawing.measure(terms, segments, rollout.chain.model.trainable.values())

    def _terms(
        self, segments: Sequence[Segment], rollout: Rollout, weight: float, predictions: Predictions | None
    ) -> Iterator[Term]:
        if self.control is not None:
            predictions = predictions or Predictions(self.control, rollout, segments)
            yield from self.control.terms(predictions, segments, self.baseline, weight)
            return
        advantages = self.baseline.advantages(rollout.rewards)
        for segment in segments:
            yield half_order(rollout, advantages, segment, weight)

    def draw(self, rollout: Rollout) -> dict[Segment, float]:
        """Returns the segments of an update, and the factor on the term of each."""
        everything = self.partition(rollout.chain)
        if self.segments is None or self.segments >= len(everything):
            return dict.fromkeys(everything, 1.0)
        return self.drawing.draw(everything, self.segments, rollout.generator(Stream.SEGMENT))

    def partition(self, chain: Chain) -> list[Segment]:
        """Returns the segments that cover the steps with noise, of the chain or of the range of it."""
        runs = noisy_runs(chain, covered(chain, self.skip_last, self.step_range))
        return [segment for run in runs for segment in partition(*run, self.length)]

    def metrics(self) -> dict[str, float]:
        return self.control.metrics() if self.control else {}

    def state_dict(self) -> dict[str, object]:
        control = {"control": self.control.state_dict()} if self.control else {}
        drawing = {"drawing": state} if (state := self.drawing.state_dict()) else {}
        return {"baseline": self.baseline.state_dict(), **control, **drawing}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.baseline.load_state_dict(state["baseline"])  # type: ignore[arg-type]
        if self.control:
            self.control.load_state_dict(state["control"])  # type: ignore[arg-type]
        if self.drawing.state_dict():
            self.drawing.load_state_dict(state["drawing"])  # type: ignore[arg-type]


def _scaled(terms: Iterator[Term], segments: Mapping[Segment, float]) -> Iterator[Term]:
    """Yields the terms of segments, each times its segment's factor."""
    factors = {segment.steps: factor for segment, factor in segments.items()}
    for term in terms:
        yield term.scaled(factors[term.steps])
        del term  # its graph must be gone before the next is built
