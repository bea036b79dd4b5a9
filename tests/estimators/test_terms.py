"""Terms come one at a time, graphs die in between, weights come back, what is drawn follows from the seed."""

import gc
import weakref
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators import (
    DDPO,
    RLR,
    AllSteps,
    Baseline,
    DirectionPerSample,
    Estimator,
    FirstOrder,
    GroupLeaveOneOut,
    HalfOrder,
    HalfOrderRLR,
    LeaveOneOut,
    LeaveOneOutRegression,
    LookAhead,
    RunningMean,
    SegmentsByNorm,
    SharedDirection,
    Term,
    UniformSteps,
    Unscaled,
    Zero,
    ZerothOrder,
)
from rlr.estimators.coefficients import leave_one_out_regression
from rlr.estimators.perturbation import normal
from rlr.rollout import Rollout, join
from rlr.samplers import DDIM
from rlr.seeding import Stream, spawn
from tests.estimators.problems import Affine, Curved, estimate, linear_chain, quadratic, rollout, wavy


def curved_chain(steps: int = 6, eta: float = 1.0) -> Chain:
    return Chain(Curved(), DDIM(steps, eta))


class Saved:
    """A tensor that some graph keeps for its backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


SEVERAL_TERMS = {
    "RLR": (RLR(2), 2),
    "RLR, look-ahead": (RLR(2, control=LookAhead()), 2),
    "half-order RLR": (HalfOrderRLR(2, None), 2),
    "half order": (HalfOrder(1), 1),
    "half order, look-ahead": (HalfOrder(2, control=LookAhead()), 2),
    "half order, drawn by norm": (HalfOrder(1, 3, drawing=SegmentsByNorm()), 1),
}


@pytest.mark.usefixtures("without_older_objects")
@pytest.mark.parametrize("name", SEVERAL_TERMS)
def test_a_term_s_graph_is_gone_before_the_next_is_built(name: str) -> None:
    estimator, depth = SEVERAL_TERMS[name]
    chain, saved = curved_chain(), weakref.WeakSet()

    def pack(tensor: Tensor) -> Saved:
        box = Saved(tensor)
        saved.add(box)
        return box

    alive = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        one_step = count_saved(chain, saved)
        for term in estimator.terms(rollout(estimator, chain, wavy)):
            alive.append(len(saved))
            term.loss.backward()
            del term
            gc.collect()
            assert len(saved) == 0
        held = list(estimator.terms(rollout(estimator, chain, wavy)))
        together = len(saved)
    # each term holds the graph of its own few steps; a consumer that keeps all of them holds the sum
    assert len(alive) == len(held) >= 2
    assert max(alive) <= (depth + 1) * one_step
    assert together == sum(alive)


def count_saved(chain: Chain, saved: weakref.WeakSet) -> int:
    """Returns how many tensors the graph of one step and the reward keeps."""
    term = next(FirstOrder(1).terms(rollout(FirstOrder(1), chain, wavy)))
    count = len(saved)
    term.loss.backward()
    return count


# --- rounds ----------------------------------------------------------------------------------------------------------


def test_a_scaled_term_has_loss_and_metrics_times_the_factor() -> None:
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    term = Term("kl", weight.square().sum(), (2, 1), {"kl/path": torch.tensor(5.0), "kl/other": torch.tensor(-1.0)})
    half = term.scaled(0.5)
    assert (half.name, half.steps) == ("kl", (2, 1))
    assert {name: value.item() for name, value in half.metrics.items()} == {"kl/path": 2.5, "kl/other": -0.5}
    half.loss.backward()
    assert weight.grad.tolist() == [3.0, 4.0]
    assert term.loss.item() == 25
    assert term.metrics["kl/path"].item() == 5


def grown(chain: Chain, terms: Iterator[Term]) -> Tensor:
    """Returns the gradient that terms leave."""
    chain.zero_grad()
    for term in terms:
        term.loss.backward()
    weights = chain.model.trainable.values()
    return torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in weights])


def size(rollout: Rollout) -> Iterator[Term]:
    """A penalty of the size of the samples, times a weight so that it has a gradient."""
    mean = rollout.trajectory.states[0].square().sum(1).mean()
    yield Term("size", mean * rollout.chain.model.out.weight.sum(), (1,), {"size": mean})


@pytest.mark.parametrize("estimator", [FirstOrder(2), HalfOrder(2, baseline=Zero())], ids=["first order", "half order"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_round_is_one_update_with_the_gradient_of_the_joined_batch(estimator: Estimator, count: int) -> None:
    chain = curved_chain()
    rollouts = [rollout(estimator, chain, wavy, seed=seed) for seed in range(count)]
    joined = join(rollouts, 0)
    assert estimator.updates_per_round == 1
    found = [grown(chain, terms) for terms in estimator.updates(rollouts)]
    assert len(found) == 1
    torch.testing.assert_close(found[0], grown(chain, estimator.terms(joined)), rtol=1e-10, atol=1e-14)
    (both,) = (grown(chain, terms) for terms in estimator.updates(rollouts, size))
    torch.testing.assert_close(both - found[0], grown(chain, size(joined)), rtol=1e-10, atol=1e-12)


def test_metrics_of_a_round_add_up_to_their_mean() -> None:
    chain, estimator = curved_chain(), HalfOrder(2)
    rollouts = [rollout(estimator, chain, wavy, seed=seed) for seed in range(3)]
    (terms,) = estimator.updates(rollouts, size)
    found = sum(term.metrics["size"] for term in terms if term.name == "size")
    (expected,) = size(join(rollouts, 0))
    assert found.item() == pytest.approx(expected.metrics["size"].item())


@pytest.mark.parametrize(
    "estimator",
    [
        HalfOrderRLR(2, None),
        HalfOrderRLR(1, 4, drawing=SegmentsByNorm()),
        DDPO(1, minibatch=2, statistics=Unscaled()),
    ],
    ids=["mean", "drawn by norm", "replay"],
)
def test_in_a_round_too_a_graph_is_gone_before_the_next_is_built(estimator: Estimator) -> None:
    """Also without a backward pass, which would empty a graph whoever holds it."""
    chain, saved, left = curved_chain(), weakref.WeakSet(), []
    rollouts = [rollout(estimator, chain, wavy, seed=seed) for seed in range(2)]
    building = False

    def pack(tensor: Tensor) -> Saved:
        nonlocal building
        if not building:
            building = True
            left.append(len(saved))
        # without its graph, which would be a cycle that nobody can collect
        box = Saved(tensor.detach())
        saved.add(box)
        return box

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        (terms,) = estimator.updates(rollouts, size)
        while (term := next(terms, None)) is not None:
            assert len(saved) > 0
            del term
            building = False
    assert len(left) > 6
    assert set(left) == {0}


# --- what is covered -------------------------------------------------------------------------------------------------


def test_the_terms_of_rlr_are_disjoint_and_cover_the_chain() -> None:
    chain, seen = curved_chain(8), set()
    estimator = RLR(3, steps=2)
    for seed in range(40):
        terms = list(estimator.terms(rollout(estimator, chain, wavy, seed=seed)))
        steps = [t for term in terms for t in term.steps]
        assert sorted(steps) == list(range(1, 9))
        seen.add(terms[1].steps)
    assert seen == {tuple(range(j + 3, j, -1)) for j in range(2, 6)}


def test_v3_gives_the_sub_chain_to_zeroth_order() -> None:
    chain = curved_chain(6)
    assert RLR(2, half=False).rest(chain, 0) == (6, 5, 4, 3, 2)
    assert len(RLR(2).rest(chain, 0)) == 3


def test_half_order_partition_covers_each_step_once() -> None:
    chain = curved_chain(7)
    for length, skip_last in ((1, 0), (2, 0), (3, 1), (7, 0)):
        steps = [t for s in HalfOrder(length, skip_last=skip_last).partition(chain) for t in s.steps]
        assert steps == list(range(7, skip_last, -1))


def test_drawn_segments_differ_and_follow_the_seed() -> None:
    chain, estimator = curved_chain(8), HalfOrder(2, segments=2)
    chosen = [tuple(t.steps for t in estimator.terms(rollout(estimator, chain, wavy, seed=s))) for s in range(30)]
    assert len(set(chosen)) == 6
    assert chosen == [
        tuple(t.steps for t in estimator.terms(rollout(estimator, chain, wavy, seed=s))) for s in range(30)
    ]


def test_uniform_depth_reaches_every_depth() -> None:
    depths = [UniformSteps(2, 4).draw(6, torch.Generator().manual_seed(s)) for s in range(60)]
    assert set(depths) == {2, 3, 4}
    assert UniformSteps(3).draw(2, torch.Generator()) == 2
    assert AllSteps().draw(9, torch.Generator()) == 9


def test_any_reward_serves_half_and_zeroth_order() -> None:
    def steps(x: Tensor) -> Tensor:
        return torch.floor(x[:, 0].detach() * 3)

    chain = curved_chain()
    for estimator in (HalfOrder(2), ZerothOrder(), RLR(2, steps=0)):
        assert not estimator.differentiable
        g = estimate(estimator, chain, steps, 32, 0)
        assert g.abs().max() > 0
    assert FirstOrder().differentiable
    assert RLR().differentiable
    assert HalfOrder(control=LookAhead()).differentiable


# --- perturbations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("perturbation", [SharedDirection(), DirectionPerSample()], ids=lambda p: type(p).__name__)
def test_weights_come_back_to_the_bit_also_after_an_exception(perturbation) -> None:  # type: ignore[no-untyped-def]
    model = Curved()
    before = {name: w.detach().clone() for name, w in model.trainable.items()}
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = model.denoise(x, 0.5, model.encode(["x"] * 3))
    seen = []

    def interrupted() -> None:
        with perturbation.shifted(model, 0.37, 5, 3):
            seen.append(model.denoise(x, 0.5, model.encode(["x"] * 3)))
            raise RuntimeError("the reward server is gone")

    with pytest.raises(RuntimeError, match="reward server"):
        interrupted()
    (shifted,) = seen
    assert not torch.equal(shifted, plain)
    assert all(torch.equal(w, before[name]) for name, w in model.trainable.items())
    assert torch.equal(model.denoise(x, 0.5, model.encode(["x"] * 3)), plain)


def test_a_direction_per_sample_is_each_sample_s_own_shift_of_the_weights() -> None:
    """Two routes: the batched product, and a model per sample with its weights really moved."""
    model, batch, scale, seed = Curved(), 4, 0.3, 11
    x = torch.randn(batch, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    condition = model.encode(["x"] * batch)
    with DirectionPerSample().shifted(model, scale, seed, batch):
        together = model.denoise(x, 0.5, condition)
        twice = model.denoise(torch.cat((x, x)), 0.5, condition)
    for i in range(batch):
        moved = Curved()
        for k, w in enumerate(moved.trainable.values()):
            w.data += scale * normal((batch, *w.shape), w, spawn(seed, Stream.WEIGHT, k))[i]
        alone = moved.denoise(x[i : i + 1], 0.5, condition)
        assert torch.allclose(together[i : i + 1], alone, atol=1e-12)
        assert torch.allclose(twice[[i, batch + i]], alone.expand(2, -1), atol=1e-12)


@pytest.mark.parametrize("perturbation", [SharedDirection(), DirectionPerSample()], ids=lambda p: type(p).__name__)
def test_combine_is_the_adjoint_of_shifting(perturbation) -> None:  # type: ignore[no-untyped-def]
    """For coefficients c the combined direction is the mean of c_i ε_i, with the ε of the shift."""
    model, batch, seed = Curved(), 3, 7
    c = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    combined = perturbation.combine(model, c, seed)
    for k, (name, w) in enumerate(model.trainable.items()):
        if isinstance(perturbation, SharedDirection):
            expected = c.mean() * normal(tuple(w.shape), w, spawn(seed, Stream.WEIGHT, k))
        else:
            epsilon = normal((batch, *w.shape), w, spawn(seed, Stream.WEIGHT, k))
            expected = sum(c[i] * epsilon[i] for i in range(batch)) / batch
        assert torch.allclose(combined[name], expected, atol=1e-14)


def test_convolutions_cannot_have_a_direction_per_sample() -> None:
    model = Affine()
    with pytest.raises(ValueError, match="use SharedDirection"):
        ZerothOrder(perturbation=DirectionPerSample()).check(Chain(model, DDIM(4)))
    ZerothOrder().check(Chain(model, DDIM(4)))


def test_one_point_perturbs_the_recorded_rollout_only_in_its_steps() -> None:
    chain = curved_chain(6)
    one, two = RLR(2, zeroth=ZerothOrder(antithetic=False, scale=0.5)), RLR(2)
    seed = 3
    perturbed, plain = (rollout(estimator, chain, wavy, seed=seed).trajectory for estimator in (one, two))
    rest = one.rest(chain, seed)
    for t in range(6, 0, -1):
        moved = chain.transition(perturbed.states[t], t, perturbed.condition).sample(perturbed.noises[t - 1])
        assert torch.equal(moved, perturbed.states[t - 1]) == (t not in rest)
    assert not torch.equal(perturbed.states[0], plain.states[0])


# --- baselines and checks --------------------------------------------------------------------------------------------


def test_leave_one_out() -> None:
    r = torch.tensor([1.0, 2.0, 6.0])
    assert torch.allclose(LeaveOneOut().advantages(r), torch.tensor([1 - 4, 2 - 3.5, 6 - 1.5]))
    assert torch.equal(Zero().advantages(r), r)
    with pytest.raises(ValueError, match=r"leave-one-out baseline needs two samples.*RunningMean"):
        LeaveOneOut().advantages(torch.ones(1))


def test_running_mean_uses_earlier_updates_only_and_survives_a_checkpoint() -> None:
    first, second = RunningMean(0.5), RunningMean(0.5)
    assert first.advantages(torch.tensor([2.0])).item() == 2.0
    second.load_state_dict(first.state_dict())
    for baseline in (first, second):
        assert baseline.advantages(torch.tensor([5.0])).item() == pytest.approx(3.0)
        assert baseline.advantages(torch.tensor([0.0])).item() == pytest.approx(-4.0)


def test_running_mean_forgets_a_reward_that_is_not_finite() -> None:
    baseline = RunningMean(0.5)
    assert baseline.advantages(torch.tensor([torch.inf, torch.nan])).isfinite().tolist() == [False, False]
    assert baseline.advantages(torch.tensor([2.0, torch.nan])).isnan().tolist() == [False, True]
    assert baseline.advantages(torch.tensor([5.0])).item() == pytest.approx(3.0)


def test_estimators_carry_their_baselines_state() -> None:
    for make in (
        lambda: RLR(2, baseline=RunningMean()),
        lambda: HalfOrderRLR(2, baseline=RunningMean()),
        lambda: ZerothOrder(antithetic=False, baseline=RunningMean()),
    ):
        one, other, chain = make(), make(), curved_chain()
        estimate(one, chain, wavy, 4, 0)
        other.load_state_dict(one.state_dict())
        assert torch.equal(estimate(one, chain, wavy, 4, 1), estimate(other, chain, wavy, 4, 1))


def test_leave_one_out_regression_is_a_fit_on_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    r = (
        f @ torch.tensor([3.0, -1.0], dtype=torch.float64)
        + 5
        + torch.randn(7, generator=generator, dtype=torch.float64)
    )
    a, b = leave_one_out_regression(r, f)
    for i in range(7):
        rest = [j for j in range(7) if j != i]
        design = torch.cat((f[rest], torch.ones(6, 1, dtype=torch.float64)), 1)
        expected = torch.linalg.lstsq(design, r[rest].unsqueeze(1)).solution.flatten()
        assert torch.allclose(torch.cat((a[i], b[i : i + 1])), expected, atol=1e-9)
    a, b = leave_one_out_regression(r, torch.ones(7, 1, dtype=torch.float64))
    assert torch.equal(a, torch.zeros_like(a))
    assert torch.allclose(r - b, LeaveOneOut().advantages(r))


@pytest.mark.parametrize("baseline", [Zero(), LeaveOneOut(), LeaveOneOut(2), GroupLeaveOneOut(4, 2), RunningMean()])
def test_a_baseline_says_whether_its_advantages_sum_to_zero(baseline: Baseline) -> None:
    rewards = torch.tensor([3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, 6.0], dtype=torch.float64)
    assert (baseline.advantages(rewards).sum().abs().item() < 1e-12) == baseline.centered


REFUSED: Sequence[tuple[object, str]] = [
    (lambda: RLR(6).check(curved_chain(6)), "within the chain of 6 steps, found 7 steps; set length to 5 at most"),
    (lambda: HalfOrder(7).check(curved_chain(6)), "does not fit the 6 steps"),
    (lambda: FirstOrder(7).check(curved_chain(6)), "longer than the chain of 6 steps"),
    (lambda: RLR(2).check(curved_chain(6, eta=0.0)), "eta"),
    (lambda: HalfOrder(2).check(curved_chain(6, eta=0.0)), "σ = 0"),
    (lambda: HalfOrderRLR(2).check(curved_chain(6, eta=0.0)), "σ = 0"),
    (lambda: ZerothOrder(2, antithetic=False), "set directions to 1 or antithetic to true"),
    (lambda: ZerothOrder(scale=0), "scale > 0"),
    (lambda: RLR(steps=0, half=False, zeroth=False), "expected at least one term"),
    (lambda: HalfOrderRLR(steps=0), "HalfOrderRLR.steps: expected at least 1, got 0"),
    (lambda: HalfOrder(0), "length >= 1"),
    (lambda: FirstOrder(0), "at least one step"),
    (lambda: UniformSteps(3, 2), "low <= high"),
    (
        lambda: ZerothOrder(antithetic=False, baseline=LeaveOneOut(), perturbation=SharedDirection()).check(
            curved_chain()
        ),
        "LeaveOneOut cancels a direction",
    ),
    (
        lambda: ZerothOrder(antithetic=False, baseline=GroupLeaveOneOut(2), perturbation=SharedDirection()).check(
            curved_chain()
        ),
        "GroupLeaveOneOut cancels a direction",
    ),
    (
        lambda: estimate(HalfOrder(1, control=LookAhead(LeaveOneOutRegression())), linear_chain(), quadratic, 4, 0),
        "needs a batch of 5, not 4",
    ),
    (lambda: estimate(HalfOrder(1, control=LookAhead()), linear_chain(), quadratic, 1, 0), "needs two samples"),
    (lambda: estimate(HalfOrder(1), linear_chain(), quadratic, 1, 0), "leave-one-out baseline needs two samples"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_impossible_pairs_are_refused_with_a_remedy(case: int) -> None:
    action, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        action()  # type: ignore[operator]


def test_zeroth_and_first_order_do_without_noise() -> None:
    chain = curved_chain(6, eta=0.0)
    for estimator in (ZerothOrder(), FirstOrder(2), RLR(half=False)):
        estimator.check(chain)
        assert estimate(estimator, chain, wavy, 4, 0).abs().max() > 0


def test_the_global_generator_is_left_alone() -> None:
    chain, before = curved_chain(), torch.get_rng_state()
    for estimator in (RLR(2), HalfOrderRLR(2), FirstOrder(UniformSteps()), ZerothOrder(antithetic=False)):
        estimate(estimator, chain, wavy, 4, 0)
    assert torch.equal(before, torch.get_rng_state())


def test_the_two_halves_of_the_look_ahead_term_are_weighted_apart() -> None:
    """The estimate is linear in the two weights, and with both 1 it is the whole term."""
    chain = curved_chain()

    def gradient(ratio: float, path: float) -> Tensor:
        control = LookAhead(ratio_weight=ratio, path_weight=path)
        return estimate(HalfOrder(2, control=control), chain, wavy, 8, 0)

    whole = estimate(HalfOrder(2, control=LookAhead()), chain, wavy, 8, 0)
    ratio, path = gradient(1, 0), gradient(0, 1)
    torch.testing.assert_close(ratio + path, whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(0.3 * ratio + 0.7 * path, gradient(0.3, 0.7), rtol=1e-10, atol=1e-12)
    assert min(ratio.norm(), path.norm()) > 1e-3 * whole.norm()
    for wrong in ({"ratio_weight": -1.0}, {"ratio_weight": 0.0, "path_weight": 0.0}):
        with pytest.raises(ValueError, match="expected ratio_weight and path_weight of at least 0, not both 0"):
            LookAhead(**wrong)
