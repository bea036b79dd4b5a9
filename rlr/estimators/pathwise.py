r"""The default for a reward with a gradient: two steps of first order, and the pathwise half of the look-ahead term."""

from rlr.estimators.control_variate import LookAhead
from rlr.estimators.half_order_rlr import HalfOrderRLR
from rlr.estimators.sample_clip import SampleClip
from rlr.estimators.values import Value


def pathwise(value: Value | None = None) -> HalfOrderRLR:
    r"""Returns the estimator of the shipped configs, ``configs/image/parts/look_ahead.yaml``.

    First order covers the last two steps, the pathwise half of the look-ahead term alone all others, in segments of two steps. The
    slopes of each sample are clipped. The estimate is biased and has a small variance; ``docs/method.md`` derives it.

    Args:
        value: The :math:`c` of the control variate; by default the reward itself.
    """
    control = LookAhead(ratio_weight=0.0, start_value=False, prediction_steps=3, value=value, clip=SampleClip())
    return HalfOrderRLR(2, None, steps=2, control=control, clip=SampleClip())
