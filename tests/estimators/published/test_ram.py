"""RAM: its published fixed point is a fixed point, and on policy its gradient is advantage-weighted matching's."""

import pytest
import torch
from torch import Tensor

from rlr.analysis.linear import linear_chain
from rlr.estimators import RAM, ForwardProcess, RoundStatistics, Unscaled, VelocityError, Zero
from rlr.estimators.forward_process import Noised
from rlr.schedules import RectifiedFlow, Schedule
from tests.estimators.matching import SLOPE, STD, chain, deviation, gradient, samples
from tests.estimators.published.test_awm import plain

ETA = 0.8


def ram(kind: type[RAM] = RAM, **settings: object) -> RAM:
    settings = {"multiplier": ETA, "process": ForwardProcess(2), "statistics": Unscaled(Zero()), **settings}
    return kind(**settings)  # type: ignore[arg-type]


class Unanchored(RAM):
    """Regresses on the current prediction in place of the base model's."""

    def losses(self, noised: Noised, prediction: Tensor, advantages: Tensor, fresh: bool) -> Tensor:
        target = prediction.detach() + self.multiplier * advantages[:, None] * (noised.clean - prediction.detach())
        return self.error.of(prediction - target, *noised.levels)


@pytest.mark.parametrize("schedule", [None, RectifiedFlow(3.0)], ids=["cosine", "flow"])
def test_the_tilted_distribution_is_a_fixed_point(schedule: Schedule | None) -> None:
    r"""The base model is :math:`\mathcal{N}(0, s^2)` and the reward :math:`k \cdot x`, so the optimum of
    :math:`\eta E[R] - \mathrm{KL}` is :math:`\mathcal{N}(\eta s^2 k, s^2)`."""
    w = ETA * STD**2 * SLOPE
    assert deviation(ram(), chain(w, schedule), w) < 4
    for wrong, weights in ((ram(multiplier=2 * ETA), w), (ram(Unanchored), w), (ram(), w / 2)):
        # 21 and more: a fourth of the draws is enough
        assert deviation(wrong, chain(weights, schedule), weights, count=25) > 10


def test_on_policy_its_gradient_is_that_of_advantage_weighted_matching_with_an_anchor() -> None:
    w = torch.tensor([0.3, -0.1], dtype=torch.float64)
    one = samples(chain(w), w, 16, 0)
    found = gradient(ram(), one)
    # AWM divides advantages by its advantage_clip
    expected = ETA * gradient(plain(error=VelocityError(), advantage_clip=1e6, kl=1e-6 / ETA), one) * 1e6
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_without_a_base_model_it_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"RAM compares with the base model, and Affine keeps no weights.*train a LoRA$"
    ):
        RAM().check(linear_chain())
    with pytest.raises(ValueError, match="expected a number above 0"):
        ram(multiplier=0.0)
    with pytest.raises(ValueError, match=r"AWM compares with the base model.*or set kl to 0"):
        plain(kl=0.1, statistics=RoundStatistics()).check(linear_chain())
