"""Methods by name: an estimator with the settings of the shipped configs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from rlr.estimators import (
    DDPO,
    RLR,
    AlignProp,
    DRaFTLV,
    Estimator,
    FirstOrder,
    HalfOrder,
    HalfOrderRLR,
    LookAhead,
    PromptStatistics,
    ReFL,
    ZerothOrder,
)
from rlr.estimators.pathwise import pathwise
from rlr.modules.optimization import Optimization


@dataclass(frozen=True)
class Method:
    """An estimator and how the weights change with it.

    Args:
        make: Returns a new estimator.
        without_gradient: Returns the one for a reward without a gradient; by default it is the same.
        optimization: The optimization.
    """

    make: Callable[[], Estimator]
    without_gradient: Callable[[], Estimator] | None = None
    optimization: Optimization = field(default_factory=lambda: Optimization(lr=3e-4, clip_norm=1.0, accumulate=4))

    def estimator(self, differentiable: bool) -> Estimator:
        """Returns a new estimator for a reward with or without a gradient."""
        return (self.make if differentiable or self.without_gradient is None else self.without_gradient)()


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "look_ahead": Method(pathwise, lambda: HalfOrder(length=4)),
        "half_order": Method(lambda: HalfOrderRLR(length=4, control=LookAhead()), lambda: HalfOrder(length=4)),
        "rlr": Method(lambda: RLR(length=4, zeroth=ZerothOrder(directions=4))),
        "first_order": Method(FirstOrder),
        "alignprop": Method(
            lambda: AlignProp(weight=0.01),
            optimization=Optimization(lr=1e-3, weight_decay=0.1, clip_norm=5.0, accumulate=4),
        ),
        "draft_lv": Method(DRaFTLV),
        "refl": Method(ReFL),
        "ddpo": Method(lambda: DDPO(num_minibatches=4, statistics=PromptStatistics(buffer=32, least=16))),
    }
)
"""Learning rate, clipping and batches an update are those of ``configs/image/parts/*_row.yaml``."""


def method_of(method: str | Estimator) -> Method:
    """Returns a method by its name, or around an estimator with RLR's optimization.

    Raises:
        ValueError: If there is no method of this name.
    """
    if isinstance(method, Estimator):
        return Method(lambda: method)
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, or an Estimator, got {method!r}")
    return METHODS[method]
