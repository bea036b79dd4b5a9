r"""The estimators that an analysis compares unless others are named, and those that determine :math:`g` for it."""

from dataclasses import dataclass

from rlr.analysis.accuracy import deep
from rlr.analysis.structure import independent
from rlr.chain import Chain
from rlr.estimators import (
    RLR,
    AlignProp,
    AllSteps,
    Antithetic,
    Baseline,
    FirstOrder,
    GroupLeaveOneOut,
    HalfOrder,
    HalfOrderRLR,
    LeaveOneOut,
    LookAhead,
    ZerothOrder,
)
from rlr.estimators.base import Estimator
from rlr.estimators.pathwise import pathwise


def segment_length(steps: int) -> int:
    r"""Returns the length :math:`h` of a half-order segment: 2 in chains of up to ten steps, 4 in longer ones."""
    return 2 if steps <= 10 else 4


def candidates(
    steps: int, differentiable: bool, samples_per_prompt: int = 1, control: LookAhead | None = None
) -> dict[str, Estimator]:
    r"""Returns estimators by name for a chain of :math:`T` steps: truncated backpropagation, likelihood ratios, and mixtures.

    Args:
        steps: The number :math:`T`.
        differentiable: Whether the reward has a gradient.
        samples_per_prompt: The number :math:`n \geq 1` of samples of a prompt side by side in a batch.
        control: The control variate that the config has, if it has one. Where it needs no gradient of the reward, half order with
            its stand-in or critic is a candidate for a reward without a gradient.
    """
    h = min(segment_length(steps), max(1, steps - 1))
    if differentiable:
        return _with_gradient(h)
    found: dict[str, Estimator] = {"HalfOrder(1)": HalfOrder(1), f"HalfOrder({h})": HalfOrder(h)}
    if samples_per_prompt > 1:
        found[f"HalfOrder({h}, groups)"] = HalfOrder(h, baseline=GroupLeaveOneOut(samples_per_prompt))
    if samples_per_prompt % 2 == 0:
        found[f"HalfOrder({h}, antithetic)"] = Antithetic(HalfOrder(h, baseline=_without_pairs(samples_per_prompt)))
    if control is not None and not control.differentiable:
        found |= _with_value(h, samples_per_prompt, control)
    return {**found, "ZerothOrder": ZerothOrder()}


def _with_gradient(h: int) -> dict[str, Estimator]:
    return {
        "FirstOrder(1)": FirstOrder(1),
        "AlignProp": AlignProp(),
        "HalfOrder(1)": HalfOrder(1),
        f"HalfOrderRLR({h}, all)": HalfOrderRLR(h, None),
        f"HalfOrderRLR({h}, all, LookAhead)": HalfOrderRLR(h, None, control=LookAhead()),
        "HalfOrderRLR(2, all, pathwise)": pathwise(),
        f"RLR({h})": RLR(h),
    }


def _without_pairs(samples_per_prompt: int) -> Baseline:
    """Returns a baseline that leaves out whole pairs, of the samples of a prompt where there are two pairs of them."""
    return GroupLeaveOneOut(samples_per_prompt, together=2) if samples_per_prompt >= 4 else LeaveOneOut(together=2)


def _with_value(h: int, samples_per_prompt: int, control: LookAhead) -> dict[str, Estimator]:
    """Returns half order with the value of a control variate: unbiased, and its pathwise half alone."""
    name = type(control.value).__name__
    baseline = GroupLeaveOneOut(samples_per_prompt) if samples_per_prompt > 1 else LeaveOneOut()
    # an estimator must not see what another one has learned from the batch that it is measured on
    whole, half = independent(control.value), independent(control.value)
    ahead = LookAhead(stride=control.stride, prediction_steps=control.prediction_steps, value=whole)
    return {
        f"HalfOrder({h}, {name})": HalfOrder(h, baseline=baseline, control=ahead),
        f"HalfOrderRLR(2, all, pathwise, {name})": pathwise(half),
    }


@dataclass(frozen=True)
class Yardstick:
    r"""Two estimators whose draws determine :math:`g` and :math:`g_{>h}`.

    Args:
        name: The name of ``full``.
        full: An unbiased estimator of :math:`g`.
        late: An estimator of :math:`g_{\leq h}`, the part of the late steps, that shares what noise it can with ``full``; None in a
            chain of one step, all of which is :math:`g_{>h}`.
        late_name: The name of ``late``.
        late_compared: Whether ``late`` is an estimator that one would train with.
    """

    name: str
    full: Estimator
    late: Estimator | None
    late_name: str = "late steps of the reference"
    late_compared: bool = False

    @property
    def estimators(self) -> dict[str, Estimator]:
        """The estimators by name."""
        return {self.name: self.full, **({self.late_name: self.late} if self.late else {})}

    @property
    def compared(self) -> list[str]:
        """The names of those that are compared with others, too."""
        return [self.name, *([self.late_name] if self.late and self.late_compared else [])]


def backpropagation(steps: int) -> Yardstick:
    r"""Returns full backpropagation, with that of the last :math:`h = \lfloor T / 2 \rfloor` steps."""
    h, full = deep(steps), FirstOrder(AllSteps())
    return Yardstick("FirstOrder(all)", full, FirstOrder(h) if h else None, f"FirstOrder({h})", late_compared=True)


def look_ahead(steps: int) -> Yardstick:
    """Returns half-order RLR with look-ahead at every step, which keeps one step in memory and needs noise in each but the last."""
    if steps == 1:
        return backpropagation(1)
    h, name = deep(steps), "HalfOrderRLR(1, all, LookAhead)"
    late: Estimator | None = None
    if h == 1:
        late = FirstOrder(1)
    elif h:
        late = HalfOrderRLR(1, None, control=LookAhead(), step_range=(h, 2))
    return Yardstick(name, HalfOrderRLR(1, None, control=LookAhead()), late)


def likelihood_ratios(steps: int) -> Yardstick:
    """Returns likelihood ratios at every step, for rewards without a gradient; it needs noise in every step."""
    h = deep(steps)
    return Yardstick("HalfOrder(1)", HalfOrder(1), HalfOrder(1, step_range=(h, 1)) if h else None)


def yardstick(chain: Chain, differentiable: bool, affordable: bool = True) -> Yardstick:
    """Returns the reference with the smallest variance that can be computed.

    Args:
        chain: The chain.
        differentiable: Whether the reward has a gradient.
        affordable: Whether the memory holds the graph of all steps.

    Raises:
        ValueError: If the chain has not the noise that the reference needs.
    """
    if not differentiable:
        found = likelihood_ratios(chain.steps)
    else:
        found = backpropagation(chain.steps) if affordable else look_ahead(chain.steps)
    for estimator in found.estimators.values():
        estimator.check(chain)
    return found
