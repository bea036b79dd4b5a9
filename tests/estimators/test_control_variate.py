"""The look-ahead control variate: what it costs, what it explains, and what would bias it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlr.analysis.measure import counted
from rlr.chain import Chain
from rlr.estimators import (
    ConstantCoefficients,
    HalfOrder,
    HalfOrderRLR,
    LeaveOneOut,
    LookAhead,
    RunningRegression,
    StandIn,
)
from rlr.estimators.coefficients import Features
from rlr.estimators.control_variate import Predictions
from rlr.estimators.segments import Segment
from rlr.rewards import Brightness, JPEGCompressibility
from rlr.rollout import Rollout
from rlr.samplers import DDIM
from tests.estimators.problems import Curved, estimate, linear_chain, quadratic, rollout, wavy

T = 6


def curved(steps: int = T) -> Chain:
    return Chain(Curved(), DDIM(steps, eta=1.0))


def predictions(control: LookAhead, sampled: Rollout, length: int = 1) -> tuple[Predictions, list[Segment]]:
    segments = HalfOrder(length).partition(sampled.chain)
    return Predictions(control, sampled, segments), segments


# --- one evaluation of the network serves the replay and the prediction ---------------------------------------------


class Separate(HalfOrderRLR):
    """The same estimate from terms that share nothing: each segment makes its own predictions."""

    def terms(self, rollout: Rollout):  # type: ignore[no-untyped-def]
        from rlr.estimators.first_order import first_order

        yield first_order(rollout, self.steps, self.first_weight)
        for segment, factor in self.half.draw(rollout).items():
            yield from self.half.terms_of({segment: factor}, rollout, self.half_weight)


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("stride", [None, 2])
def test_shared_and_separate_evaluations_give_one_gradient(length: int, stride: int | None) -> None:
    def gradient(kind: type[HalfOrderRLR]) -> Tensor:
        control = LookAhead(ConstantCoefficients((0.9, 0.2)), stride=stride)
        return estimate(kind(length, None, 2, control=control), curved(), wavy, 8, 0)

    torch.testing.assert_close(gradient(HalfOrderRLR), gradient(Separate), rtol=1e-10, atol=1e-12)


def test_a_step_costs_two_passes_forward_and_two_backward() -> None:
    chain, batch = curved(), 4
    estimator = HalfOrderRLR(1, None, 1, control=LookAhead())
    with counted(chain, batch) as passes:
        for term in estimator.terms(rollout(estimator, chain, wavy, batch)):
            term.loss.backward()
    # the rollout, then every step once: the prediction of a segment is the first step of the next one
    assert passes.forward == 2 * T
    # the weights' backward of every step, and the state's of every state in which a segment ends
    assert passes.backward == T + (T - 1)


def test_the_slope_is_the_derivative_of_the_value() -> None:
    sampled = rollout(HalfOrder(1), curved(), wavy)
    for n, stride in ((1, None), (2, 2)):
        found, _ = predictions(LookAhead(stride=stride), sampled)
        x, condition = sampled.trajectory.states[3], sampled.trajectory.condition
        for k in range(2):
            shift = torch.zeros_like(x)
            shift[:, k] = 1e-6
            ends = (
                sampled.score(sampled.chain.refine(sampled.chain.denoise(y, 3, condition), y, 3, condition, n))
                for y in (x + shift, x - shift)
            )
            plus, minus = (end.detach() for end in ends)
            torch.testing.assert_close(found.slope(3)[:, k], (plus - minus) / 2e-6, rtol=1e-5, atol=1e-7)


def test_more_steps_predict_the_deterministic_sample() -> None:
    """With as many steps as are left, the prediction is the sample of DDIM with η = 0."""
    chain = curved()
    sampled = rollout(HalfOrder(1), chain, wavy)
    x, condition = sampled.trajectory.states[4], sampled.trajectory.condition
    expected = x
    for t in (4, 3, 2):
        expected = DDIM(T, eta=0.0).transition(chain.denoise(expected, t, condition), expected, t, chain.grid).mean
    expected = chain.denoise(expected, 1, condition)
    torch.testing.assert_close(chain.refine(chain.denoise(x, 4, condition), x, 4, condition, 9), expected)
    assert (chain.denoise(x, 4, condition) - expected).abs().max() > 1e-2


# --- features without a pathwise half -------------------------------------------------------------------------------


def explained(
    features: Callable[[Predictions, int, int], Tensor], j: int = 3, batch: int = 4000
) -> tuple[float, float]:
    """Returns the mean of the features and of their product with the noise of x_j, in standard errors."""
    sampled = rollout(HalfOrder(1), curved(), wavy, batch, 1)
    found, segments = predictions(LookAhead(increments=True), sampled)
    for segment in sorted(segments, key=lambda s: s.stop):
        found.value(segment.stop)
    f = features(found, j, j + 1)
    product = f.unsqueeze(1) * sampled.trajectory.noises[j]
    scores = [(values.mean(0) / (values.std(0) / batch**0.5)).abs().max().item() for values in (f, product)]
    return scores[0], scores[1]


def test_increments_have_the_mean_0_and_do_not_correlate_with_the_noise_before() -> None:
    mean, product = explained(lambda found, j, start: found.increments(j))
    assert max(mean, product) < 4
    # the increment of the segment's own noise does correlate, so its place in the sum matters
    _, product = explained(lambda found, j, start: found.increments(j + 1))
    assert product > 10


def test_the_value_at_the_start_does_not_correlate_with_the_noise_and_that_at_the_end_does() -> None:
    _, product = explained(lambda found, j, start: found.value(start))
    assert product < 4
    _, product = explained(lambda found, j, start: found.value(j))
    assert product > 10


class OwnIncrement(LookAhead):
    """Sabotage: the increment of the segment's own noise is a feature, too, without a pathwise half."""

    def _features(self, predictions: Predictions, segment: Segment) -> Features:
        features = super()._features(predictions, segment)
        features.values[:, -1] += predictions._increment(segment.stop)
        return features


def test_the_own_increment_biases_the_estimate() -> None:
    from tests.estimators.problems import deviation, exact_gradients

    control = OwnIncrement(ConstantCoefficients((1.0, 0.0, 1.0)), increments=True)
    exact = exact_gradients(linear_chain())[1:].sum(0)
    sound = HalfOrder(1, skip_last=1, control=LookAhead(ConstantCoefficients((1.0, 0.0, 1.0)), increments=True))
    assert deviation(sound, linear_chain(), quadratic, exact) < 4
    assert deviation(HalfOrder(1, skip_last=1, control=control), linear_chain(), quadratic, exact, 50, 2048) > 10


def test_each_feature_lowers_the_variance() -> None:
    def variance(control: LookAhead | None) -> float:
        estimator = HalfOrder(1, skip_last=1, control=control)
        chain = curved()
        return torch.stack([estimate(estimator, chain, wavy, 64, seed) for seed in range(60)])[10:].var(0).sum().item()

    plain, value, start, increments = (
        variance(control)
        for control in (
            None,
            LookAhead(start_value=False),
            LookAhead(),
            LookAhead(increments=True),
        )
    )
    assert plain > 1.3 * value > 1.3 * start > 1.3 * increments


# --- coefficients ---------------------------------------------------------------------------------------------------


def advantages(
    fit: RunningRegression, j: int, rewards: Tensor, features: Tensor, prior: tuple[float, ...] = (1.0,)
) -> tuple[Tensor, Tensor]:
    return fit.advantages(j, rewards, Features(features, prior), LeaveOneOut())


def sample(n: int, seed: int, slope: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    f = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    return slope * f[:, 0] + 7 + 0.1 * noise, f


def test_running_coefficients_come_from_earlier_rollouts_alone() -> None:
    fit = RunningRegression(window=4, prior_std=1e3)
    for seed in range(6):
        rewards, features = sample(16, seed)
        before = fit.state_dict()
        found, a = advantages(fit, 2, rewards, features)
        again = RunningRegression(window=4, prior_std=1e3)
        again.load_state_dict(before)
        _, other = advantages(again, 2, rewards + 5 * features[:, 0] ** 2, -features)
        assert torch.equal(a, other)
    assert a.unique().item() == pytest.approx(2.0, abs=0.05)
    assert found.std() < 0.2
    # the rewards of the first rollouts have left the window
    for seed in range(4):
        advantages(fit, 2, *sample(16, seed, slope=-1.0))
    assert advantages(fit, 2, *sample(16, 9))[1].unique().item() == pytest.approx(-1.0, abs=0.05)


def test_without_earlier_rollouts_the_coefficient_of_the_value_is_1() -> None:
    rewards, features = sample(16, 0)
    _, a = advantages(RunningRegression(), 0, rewards, features.repeat(1, 3), (1.0, 0.0, 1.0))
    assert torch.equal(a, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64).expand(16, 3))


def test_a_feature_that_explains_little_keeps_its_prior_and_one_that_explains_much_does_not() -> None:
    """The posterior mean of a normal model: with n samples of variance v and a rest of variance s² it weighs n v / s² : 1 / τ²."""
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(64, 1, generator=generator, dtype=torch.float64)
    rest = torch.randn(64, generator=generator, dtype=torch.float64)
    for size, expected in ((1e-2, 1.0), (1e2, 3.0)):
        fit = RunningRegression(prior_std=0.5)
        rewards = 3 * size * f[:, 0] + rest
        advantages(fit, 0, rewards, size * f)
        a = advantages(fit, 0, rewards, size * f)[1][0, 0].item()
        assert a == pytest.approx(expected, abs=0.05)
        x, y = size * (f[:, 0] - f.mean()), rewards - rewards.mean()
        first = ((r := (y - x).square().mean() / 0.25) + x @ y) / (x @ x + r)
        r = (y - first * x).square().mean() / 0.25
        assert a == pytest.approx(((r + x @ y) / (x @ x + r)).item(), rel=1e-9)


def test_each_state_has_its_own_fit_and_not_finite_rows_are_left_out() -> None:
    fit = RunningRegression(prior_std=1e3)
    for seed in range(3):
        rewards, features = sample(16, seed)
        rewards[3] = torch.nan
        advantages(fit, 1, rewards, features)
        advantages(fit, 2, *sample(16, seed, slope=-3.0))
    slopes = [advantages(fit, j, *sample(16, 9))[1].unique().item() for j in (1, 2)]
    assert slopes == pytest.approx([2.0, -3.0], abs=0.1)


def test_a_resumed_control_variate_goes_on_as_the_uninterrupted_one() -> None:
    chain = curved()
    whole, part = (HalfOrderRLR(2, None, control=LookAhead(increments=True)) for _ in range(2))
    for seed in range(3):
        estimate(whole, chain, wavy, 8, seed)
    part.load_state_dict(whole.state_dict())
    assert torch.equal(estimate(whole, chain, wavy, 8, 3), estimate(part, chain, wavy, 8, 3))


def test_a_resumed_run_may_have_other_features() -> None:
    chain = curved()
    before, after = (HalfOrder(1, control=LookAhead(start_value=start, increments=True)) for start in (True, False))
    estimate(before, chain, wavy, 8, 0)
    after.load_state_dict(before.state_dict())
    fresh = HalfOrder(1, control=LookAhead(start_value=False, increments=True))
    assert torch.equal(estimate(after, chain, wavy, 8, 1), estimate(fresh, chain, wavy, 8, 1))


def test_the_explained_share_is_logged_by_state() -> None:
    estimator = HalfOrderRLR(1, None, control=LookAhead())
    for seed in range(8):
        estimate(estimator, curved(), wavy, 64, seed)
    shares = estimator.metrics()
    assert list(shares) == [f"explained/{j}" for j in range(1, T)]
    # the fewer steps are left, the more of the reward is predicted
    assert shares["explained/1"] > shares["explained/3"] > shares["explained/5"] > 0


def test_a_stand_in_needs_a_gradient_and_the_aligned_reward_does_not() -> None:
    assert not HalfOrder(control=LookAhead(value=StandIn(Brightness()))).differentiable
    with pytest.raises(ValueError, match="expected a differentiable reward, got JPEGCompressibility"):
        StandIn(JPEGCompressibility())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LookAhead(stride=0), "LookAhead.stride: expected at least 1, got 0"),
        (lambda: RunningRegression(window=0), "expected window >= 1 and prior_std > 0"),
        (lambda: RunningRegression(prior_std=0.0), "expected window >= 1 and prior_std > 0"),
    ],
)
def test_wrong_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
