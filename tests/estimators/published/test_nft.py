"""DiffusionNFT: its first gradient is advantage-weighted matching's, and its published fixed point is a fixed point."""

import pytest
import torch

from rlr.estimators import (
    CleanError,
    DecayRamp,
    DiffusionNFT,
    ForwardProcess,
    NormalizedError,
    Unscaled,
    VelocityError,
    Zero,
)
from rlr.estimators.matching_errors import MatchingError
from rlr.rollout import Rollout
from rlr.schedules import RectifiedFlow, Schedule
from tests.estimators.matching import SLOPE, STD, chain, deviation, gradient, samples
from tests.estimators.published.test_awm import plain

ZERO = torch.zeros(2, dtype=torch.float64)
BETA, CLIP = 0.5, 20.0


class Lagging(DiffusionNFT):
    """Holds the old policy at the base model's weights."""

    def updates(self, rollouts, penalty=lambda r: iter(())):  # type: ignore[no-untyped-def]
        self.old.weights = {"w": ZERO}
        yield from super().updates(rollouts, penalty)


def nft(kind: type[DiffusionNFT] = DiffusionNFT, **settings: object) -> DiffusionNFT:
    settings = {
        "beta": BETA,
        "process": ForwardProcess(2),
        "error": CleanError(),
        "statistics": Unscaled(Zero()),
        "advantage_clip": CLIP,
        "kl": 0.0,
        **settings,
    }
    return kind(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("beta", [0.1, 1.0])
@pytest.mark.parametrize("error", [CleanError(), VelocityError(), NormalizedError()], ids=lambda e: type(e).__name__)
def test_where_the_policies_agree_its_gradient_is_that_of_advantage_weighted_matching(
    error: MatchingError, beta: float
) -> None:
    one = samples(chain(torch.tensor([0.3, -0.1], dtype=torch.float64)), ZERO, 16, 0)
    found = gradient(nft(beta=beta, error=error), one)
    expected = gradient(plain(error=error, advantage_clip=CLIP), one) * CLIP
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("schedule", [None, RectifiedFlow(3.0)], ids=["cosine", "flow"])
def test_the_published_minimum_is_a_fixed_point(schedule: Schedule | None) -> None:
    r"""For samples :math:`\mathcal{N}(0, s^2)` of the old policy and :math:`2 r - 1 = k \cdot x / c` it is
    :math:`w = s^2 k / (c \beta)`: :math:`E[x_0 (x_0 - \hat x_0^\mathrm{old}) \mid x_t]` is the posterior variance."""
    w = STD**2 * SLOPE / (CLIP * BETA)
    assert deviation(nft(Lagging), chain(w, schedule), ZERO) < 4
    # half the way, and with the branches the wrong way around: 20 and more, so a fourth of the draws is enough
    assert deviation(nft(Lagging), chain(w / 2, schedule), ZERO, count=25) > 10
    assert deviation(nft(Lagging, beta=2 * BETA), chain(w, schedule), ZERO, count=25) > 10


def test_samples_are_those_of_the_old_policy_which_follows_after_a_round() -> None:
    one = chain()
    w = one.model.get_parameter("w")
    estimator = nft(decay=DecayRamp(slope=0.25, limit=0.5))
    sizes = []
    for update in range(3):
        made: Rollout = estimator.rollout(
            one, ["x"] * 4, one.draw(range(4)).double(), samples(one, ZERO, 4, 0).objective
        )
        sizes.append(made.trajectory.states[0].mean().item())
        for terms in estimator.updates([made]):
            list(terms)
            with torch.no_grad():
                w += 1.0
        # after update 1, 2, 3 the decay is 1/4, 1/2, 1/2
        expected = (0.25 * 0 + 0.75 * 1, 0.5 * 0.75 + 0.5 * 2, 0.5 * 1.375 + 0.5 * 3)[update]
        torch.testing.assert_close(estimator.old.weights["w"], torch.full((2,), expected, dtype=torch.float64))
    assert sizes[0] < sizes[1] < sizes[2]
    assert torch.equal(w.detach(), torch.full((2,), 3.0, dtype=torch.float64))
    assert estimator.metrics() == {"old_policy/decay": 0.5}


@pytest.mark.parametrize("updates", [1, 2])
def test_without_decay_the_old_policy_is_that_of_the_round(updates: int) -> None:
    """And costs a pass of its own from the second update on only."""
    one, passes = chain(), []
    denoise = one.model.denoise
    one.model.denoise = lambda *args: passes.append(1) or denoise(*args)  # type: ignore[method-assign,func-returns-value]
    estimator = nft(decay=DecayRamp(limit=0.0), epochs=updates)
    for terms in estimator.updates([samples(one, ZERO, 16, 0)]):
        list(terms)
    levels = 5
    assert len(passes) == levels * (1 if updates == 1 else 3)
    assert estimator.old.weights == {}


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"kl": -1.0}, {"advantage_clip": 0.0}, {"decay": (0.1, 1.0)}])
def test_impossible_numbers(wrong: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        nft(**{k: DecayRamp(*v) if k == "decay" else v for k, v in wrong.items()})
