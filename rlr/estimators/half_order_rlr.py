r"""Half-order RLR: first order on the last steps, half order on a random part of a partition of the others.

.. math:: \hat g = \nabla_{\theta_{1 \dots k}} R(x_0) + \sum_{i = 1}^{m} \frac{1}{m \, p_i}
    (R - b) \, \nabla_{\theta_{S_i}} \log \mathcal{N}(x_{j_i}; M(x_{j_i + h}), \sigma_{j_i + 1}^2)

with :math:`S_1, \dots, S_m` drawn without replacement from the :math:`n` segments of steps :math:`T, \dots, k + 1`, by default with
:math:`p_i = 1 / n`. The estimate has no zeroth order and is unbiased.
"""

from collections.abc import Iterator

from rlr.chain import Chain
from rlr.estimators.advantages import Baseline
from rlr.estimators.base import Term
from rlr.estimators.control_variate import LookAhead, Predictions
from rlr.estimators.drawing import Drawing
from rlr.estimators.first_order import first_order
from rlr.estimators.half_order import HalfOrder
from rlr.estimators.sample_clip import ClippingEstimator, SampleClip
from rlr.estimators.segments import StepRange
from rlr.rollout import Rollout


class HalfOrderRLR(ClippingEstimator):
    r"""RLR without zeroth order, unbiased because the half-order segments are weighted.

    With ``control=LookAhead()`` and ``segments=None`` this is the unbiased estimator with the smallest variance here among those
    that keep few steps in memory.

    Where the value of the control variate is not the reward itself, first order uses the slope of the value as well, and is then
    biased by as much as the value is wrong. The reward needs no gradient.

    References:
        | Half-order Fine-Tuning for Diffusion Model: A Recursive Likelihood Ratio Optimizer (ICLR 2026)

    Args:
        length: The length :math:`h` of a segment.
        segments: The number :math:`m` of segments of an update; None for all :math:`n`.
        steps: The number :math:`k \geq 1` of steps covered by first order.
        baseline: The baseline; by default the leave-one-out mean.
        control: The control variate; by default none.
        first_weight: The weight of the first-order term; 1 for an unbiased estimate.
        half_weight: The weight of the half-order terms; 1 for an unbiased estimate.
        step_range: The first and the last step that half order covers, such as those of one stage of a staged prompt; by
            default all that first order does not cover. The gradients of other steps are then not estimated.
        clip: Bounds the gradient of the reward of each sample in the first-order term; the control variate has one of its own.
        drawing: How the :math:`m` segments are drawn; by default :class:`~rlr.estimators.drawing.UniformSegments`.
    """

    def __init__(
        self,
        length: int = 4,
        segments: int | None = 1,
        steps: int = 1,
        baseline: Baseline | None = None,
        control: LookAhead | None = None,
        first_weight: float = 1.0,
        half_weight: float = 1.0,
        step_range: StepRange | None = None,
        clip: SampleClip | None = None,
        drawing: Drawing | None = None,
    ) -> None:
        if steps < 1:
            raise ValueError(
                f"HalfOrderRLR.steps: expected at least 1, got {steps}; to leave out first order, use HalfOrder"
            )
        super().__init__(clip)
        self.steps = steps
        self.half = HalfOrder(length, segments, steps, baseline, control, step_range, drawing)
        self.first_weight = first_weight
        self.half_weight = half_weight

    @property
    def differentiable(self) -> bool:
        return self.half.control is None or self.half.control.differentiable

    def check(self, chain: Chain) -> None:
        self.half.check(chain)

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        segments = self.half.draw(rollout)
        control = self.half.control
        if control is None:
            yield first_order(rollout, self.steps, self.first_weight, clip=self.clip)
            yield from self.half.terms_of(segments, rollout, self.half_weight)
            return
        predictions = Predictions(control, rollout, list(segments))
        yield self._first(rollout, predictions)
        yield from self.half.terms_of(segments, rollout, self.half_weight, predictions)

    def _first(self, rollout: Rollout, predictions: Predictions) -> Term:
        """Returns the first-order term, by the value of the control variate where the reward has no gradient."""
        slope = None if predictions.control.differentiable else predictions.slope(0)
        # the segment that ends in x_k uses the same evaluation of the network
        first = predictions.evaluate(self.steps)
        return first_order(rollout, self.steps, self.first_weight, first, self.clip, slope)

    def metrics(self) -> dict[str, float]:
        return self.half.metrics()

    def state_dict(self) -> dict[str, object]:
        return {**self.half.state_dict(), **super().state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.half.load_state_dict(state)
        super().load_state_dict(state)
