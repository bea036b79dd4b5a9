"""What an estimator is made of: its control variate, whether another estimator is the same, and whether it is unbiased."""

from collections.abc import Callable, Mapping
from copy import deepcopy

from torch import Tensor

from rlr.chain import Chain
from rlr.estimators import AllSteps, Antithetic, FirstOrder, HalfOrder, HalfOrderRLR, LookAhead, Value
from rlr.estimators.base import Estimator
from rlr.estimators.parts import has_settings, parts
from rlr.rewards.base import Reward


def find_control(estimator: Estimator) -> LookAhead | None:
    """Returns the first control variate of an estimator, or of an estimator inside it; None if it has none."""
    return next((part for part in parts(estimator) if isinstance(part, LookAhead)), None)


def independent(value: Value) -> Value:
    """Returns a copy of a value function that learns by itself and shares the networks of rewards."""
    return deepcopy(value, {id(part): part for part in parts(value) if isinstance(part, Reward)})


def alike(one: object, other: object, steps: int) -> bool:
    r"""Returns whether two estimators have the same classes and the same settings, so that they estimate the same.

    Args:
        one: An estimator, or a part of one.
        other: Another one.
        steps: The number :math:`T` of steps of the chain, which decides whether two look-aheads predict in the same steps.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(alike(a, b, steps) for a, b in zip(one, other, strict=True))
    if has_settings(one):
        mine, theirs = _settings(one, steps), _settings(other, steps)
        return mine.keys() == theirs.keys() and all(alike(mine[name], theirs[name], steps) for name in mine)
    return one is other or (not isinstance(one, Tensor) and one == other)


def _settings(part: object, steps: int) -> dict[str, object]:
    """Returns the attributes of an object; of a look-ahead the steps of its predictions, which two arguments decide."""
    found = dict(vars(part))
    if isinstance(part, LookAhead):
        ways = ("stride", "prediction_steps")
        found = {name: value for name, value in found.items() if name not in ways}
        found["predictions"] = tuple(part.steps_from(j, steps) for j in range(1, steps))
    return found


def unbiased(estimator: Estimator, chain: Chain) -> bool:
    r"""Returns whether an estimator is unbiased by construction: for the gradient of all steps that its noise lets it cover.

    These are full backpropagation, half order over the whole chain, half-order RLR with all weights 1, and antithetic pairs of
    them. Half order does not cover steps without noise. Zeroth order and RLR are biased by smoothing, and are not among them.

    Args:
        estimator: The estimator.
        chain: The chain, which must have noise in all steps that half-order RLR leaves to half order.
    """
    return _UNBIASED.get(type(estimator), lambda estimator, chain: False)(estimator, chain)


def _first_order(estimator: FirstOrder, chain: Chain) -> bool:
    return isinstance(estimator.steps, AllSteps) and estimator.weight == 1 and estimator.clip is None


def _half_order(estimator: HalfOrder, chain: Chain) -> bool:
    return estimator.step_range is None and estimator.skip_last == 0 and _exact(estimator.control)


def _half_order_rlr(estimator: HalfOrderRLR, chain: Chain) -> bool:
    half, weights = estimator.half, (estimator.first_weight, estimator.half_weight)
    noise = set(range(estimator.steps + 1, chain.steps + 1)) <= set(chain.noisy_steps)
    # first order follows the slope of the value where the reward has no gradient
    followed = half.control is None or half.control.differentiable
    return (
        noise
        and followed
        and weights == (1, 1)
        and half.step_range is None
        and estimator.clip is None
        and _exact(half.control)
    )


def _exact(control: LookAhead | None) -> bool:
    return control is None or (control.clip is None and control.ratio_weight == control.path_weight == 1)


_UNBIASED: Mapping[type[Estimator], Callable[..., bool]] = {
    FirstOrder: _first_order,
    HalfOrder: _half_order,
    HalfOrderRLR: _half_order_rlr,
    Antithetic: lambda estimator, chain: unbiased(estimator.estimator, chain),
}
