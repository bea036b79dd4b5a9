"""DDPO: its first gradient is REINFORCE's, its later ones are those of its loss, written out here a second time."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from rlr.chain import Chain
from rlr.estimators import (
    DDPO,
    Baseline,
    Estimator,
    HalfOrder,
    ImportanceRatio,
    LeaveOneOut,
    RoundStatistics,
    ScoreFunction,
    Term,
    Unscaled,
)
from rlr.estimators.replay import Minibatch, Recorded, record
from rlr.models.base import Condition
from rlr.rewards.base import Scores
from rlr.rollout import Rollout, unconditional
from rlr.samplers import DDIM
from tests.estimators.problems import (
    Affine,
    Cosine,
    Curved,
    deviation,
    estimate,
    exact_gradients,
    linear_chain,
    quadratic,
    wavy,
)
from tests.modules.toy import STAGED, WORDS, AffineModel

D, T, BATCH = 2, 6, 8
"""The toys have latents of two dimensions."""

CHAINS = {"linear": (linear_chain, quadratic), "curved": (lambda: Chain(Curved(), DDIM(T)), wavy)}


def plain(**settings) -> DDPO:
    """DDPO whose only difference from REINFORCE is its likelihood's mean over dimensions."""
    return DDPO(
        **{"num_minibatches": 1, "statistics": Unscaled(), "advantage_clip": None, "mean_over_steps": False, **settings}
    )


class Standardised(Baseline):
    """The advantages of RoundStatistics, for REINFORCE."""

    def advantages(self, rewards: Tensor) -> Tensor:
        return (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-8)


@pytest.mark.parametrize("surrogate", [ImportanceRatio(), ImportanceRatio(None), ScoreFunction()])
@pytest.mark.parametrize("name", CHAINS)
def test_the_first_gradient_is_reinforce_s_over_the_dimension(name: str, surrogate) -> None:  # type: ignore[no-untyped-def]
    chain, reward = CHAINS[name][0](), CHAINS[name][1]
    first = estimate(plain(surrogate=surrogate), chain, reward, BATCH, 3)
    torch.testing.assert_close(first, estimate(HalfOrder(1), chain, reward, BATCH, 3) / D, rtol=1e-12, atol=1e-14)


def test_as_published_it_is_also_over_the_steps_and_of_standardised_rewards() -> None:
    chain = linear_chain(T)
    published = DDPO(num_minibatches=1, statistics=RoundStatistics(), advantage_clip=None)
    expected = estimate(HalfOrder(1, baseline=Standardised()), chain, quadratic, BATCH, 3) / (D * T)
    torch.testing.assert_close(estimate(published, chain, quadratic, BATCH, 3), expected, rtol=1e-12, atol=1e-14)


def test_the_sum_over_dimensions_would_be_noticed() -> None:
    class Summed(DDPO):
        def minibatch_terms(self, minibatch: Minibatch) -> Iterator[Term]:
            for term in super().minibatch_terms(minibatch):
                yield term.scaled(D)

    chain = linear_chain()
    settings = {"num_minibatches": 1, "statistics": Unscaled(), "advantage_clip": None, "mean_over_steps": False}
    first = estimate(Summed(**settings), chain, quadratic, BATCH, 3)
    assert not torch.allclose(first, estimate(HalfOrder(1), chain, quadratic, BATCH, 3) / D, rtol=0.1)


class TimesD(Estimator):
    """DDPO's terms times the dimension, in the units of the gradient."""

    def __init__(self, inner: DDPO) -> None:
        self.inner = inner

    def record(self, chain: Chain, condition: Condition, noises: Tensor, seed: int) -> Recorded:
        return self.inner.record(chain, condition, noises, seed)

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        for term in self.inner.terms(rollout):
            yield term.scaled(D)


def test_on_drawn_steps_its_mean_is_the_gradient_still() -> None:
    chain = linear_chain(T)
    estimator = TimesD(plain(timestep_fraction=0.5))
    assert deviation(estimator, chain, quadratic, exact_gradients(chain).sum(0), count=100) < 4


# --- rounds ----------------------------------------------------------------------------------------------------------


def sampled(chain: Chain, batches: int = 3, batch: int = 4) -> list[Rollout]:
    """Returns the rollouts of a round, with the chain's weights."""
    found = []
    for k in range(batches):
        noises = torch.randn((T + 1, batch, 2), generator=torch.Generator().manual_seed(100 + k), dtype=torch.float64)
        prompts = [f"{k}.{i}" for i in range(batch)]
        trajectory = record(chain, chain.encode(prompts), noises)
        found.append(Rollout(chain, trajectory, unconditional(quadratic), prompts, k))
    return found


def watch(estimator: DDPO) -> list[Minibatch]:
    """Returns a list that collects the minibatches that the estimator is asked about from now on."""
    seen: list[Minibatch] = []
    inner = estimator.minibatch_terms
    estimator.minibatch_terms = lambda minibatch: seen.append(minibatch) or inner(minibatch)  # type: ignore[method-assign,func-returns-value]
    return seen


def minibatches(estimator: DDPO, rollouts: Sequence[Rollout]) -> list[list[Minibatch]]:
    """Returns the minibatches of each update of a round."""
    seen, found = watch(estimator), []
    for terms in estimator.updates(rollouts):
        first = len(seen)
        list(terms)
        found.append(seen[first:])
    return found


def reseeded(minibatch: Minibatch, seed: int) -> Minibatch:
    rollout = minibatch.rollout
    again = Rollout(rollout.chain, rollout.trajectory, rollout.objective, rollout.prompts, seed)
    return replace(minibatch, rollout=again)


def gradient_of(chain: Chain, terms: Iterator[Term]) -> Tensor:
    """Returns minus the gradient of one update."""
    chain.zero_grad()
    for term in terms:
        term.loss.backward()
    return -torch.cat([p.grad.flatten() for p in chain.model.trainable.values()])


def test_every_epoch_takes_every_sample_once_in_a_new_order() -> None:
    chain = linear_chain(T)
    estimator = DDPO(num_minibatches=5, epochs=2, minibatch=2)
    updates = minibatches(estimator, sampled(chain))
    assert len(updates) == estimator.updates_per_round == 10
    assert max(len(minibatch.rollout) for update in updates for minibatch in update) == 2
    prompts = [[p for m in update for p in m.rollout.prompts] for update in updates]
    everyone = sorted(f"{k}.{i}" for k in range(3) for i in range(4))
    one, other = ([p for update in prompts[k : k + 5] for p in update] for k in (0, 5))
    assert sorted(one) == sorted(other) == everyone
    assert one != other
    assert [m.fresh for update in updates for m in update] == [True] * len(updates[0]) + [False] * sum(
        len(u) for u in updates[1:]
    )


def test_what_belongs_to_a_sample_stays_with_it() -> None:
    chain = linear_chain(T)
    rollouts = sampled(chain)
    rewards = torch.cat([rollout.rewards for rollout in rollouts])
    advantages = (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-8)
    estimator = DDPO(num_minibatches=2, statistics=RoundStatistics(), minibatch=3, advantage_clip=0.5)
    for update in minibatches(estimator, rollouts):
        for m in update:
            for row, prompt in enumerate(m.rollout.prompts):
                k, i = map(int, prompt.split("."))
                own = rollouts[k].trajectory
                assert torch.equal(m.trajectory.states[:, row], own.states[:, i])
                assert torch.equal(m.trajectory.noises[:, row], own.noises[:, i])
                assert torch.equal(m.trajectory.log_probs[:, row], own.log_probs[:, i])
                assert m.rollout.rewards[row] == rollouts[k].rewards[i]
                assert m.advantages[row].item() == pytest.approx(advantages[4 * k + i].clamp(-0.5, 0.5).item())


@pytest.mark.parametrize("minibatch", [1, 3, 5, 12, None])
def test_an_update_does_not_depend_on_its_minibatches(minibatch: int | None) -> None:
    chain = linear_chain(T)
    (update,) = DDPO(num_minibatches=1, minibatch=minibatch).updates(sampled(chain))
    (whole,) = DDPO(num_minibatches=1, minibatch=12).updates(sampled(chain))
    torch.testing.assert_close(gradient_of(chain, update), gradient_of(chain, whole), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("minibatch", [1, 3, 5, 12, None])
def test_a_penalty_is_the_mean_over_the_samples_of_an_update(minibatch: int | None) -> None:
    chain = linear_chain(T)
    rollouts = sampled(chain)

    def penalty(rollout: Rollout) -> Iterator[Term]:
        mean = rollout.rewards.mean()
        yield Term("kl", mean * chain.model.w.sum(), (1,), {"kl/path": mean})

    (update,) = DDPO(num_minibatches=1, minibatch=minibatch).updates(rollouts, penalty)
    terms = [term for term in update if term.name == "kl"]
    expected = torch.cat([rollout.rewards for rollout in rollouts]).mean()
    assert sum(term.metrics["kl/path"] for term in terms) == pytest.approx(expected.item())
    found = gradient_of(chain, iter(terms))
    torch.testing.assert_close(found, (-expected).expand(3), rtol=1e-12, atol=0)


def test_a_round_of_fewer_samples_than_minibatches_has_fewer_updates() -> None:
    chain = linear_chain(T)
    assert len(minibatches(DDPO(num_minibatches=9), sampled(chain, batches=1))) == 4


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_round_with_a_reward_that_is_not_finite_has_one_update_without_terms(value: float) -> None:
    chain, estimator = linear_chain(T), DDPO(num_minibatches=2, epochs=3)
    rollouts = sampled(chain)
    bad = rollouts[1]
    scores = Scores(bad.rewards.index_fill(0, torch.tensor([2]), value))
    rollouts[1] = Rollout(chain, bad.trajectory, bad.objective, bad.prompts, bad.seed, scores)
    assert [list(terms) for terms in estimator.updates(rollouts)] == [[]]
    # nothing is remembered of it
    assert estimator.state_dict() == DDPO().state_dict()
    assert estimator.metrics() == {}


def test_a_round_of_one_sample_is_refused() -> None:
    chain = linear_chain(T)
    with pytest.raises(ValueError, match=r"the round has one.*set data.batch_size to 2"):
        minibatches(DDPO(), sampled(chain, batches=1, batch=1))
    # two batches of one sample can be compared
    (update,) = DDPO(num_minibatches=1).updates(sampled(chain, batches=2, batch=1))
    assert gradient_of(chain, update).abs().max() > 0


# --- after the first update ------------------------------------------------------------------------------------------


def loss_by_hand(chain: Chain, old: Tensor, clip: float, minibatch: Minibatch) -> Tensor:
    """The published loss, from the weights of the rollout and the present ones, with torch's own normal density."""
    total: Tensor = torch.zeros((), dtype=torch.float64)
    x = minibatch.trajectory.states
    for t in range(1, T + 1):

        def log_prob(w: Tensor, t: int = t) -> Tensor:
            denoised = w[0] * x[t] + w[1] + w[2] * chain.grid.times[t]
            p = chain.sampler.transition(denoised, x[t], t, chain.grid)
            return Normal(p.mean, p.std).log_prob(x[t - 1]).mean(1)

        ratio = (log_prob(chain.model.w) - log_prob(old)).exp()
        a = minibatch.advantages
        total = total + torch.max(-a * ratio, -a * ratio.clamp(1 - clip, 1 + clip)).mean() / T
    return total


@pytest.mark.parametrize("clip", [0.02, 0.5])
def test_a_later_gradient_is_that_of_the_published_loss(clip: float) -> None:
    chain = linear_chain(T)
    old = chain.model.w.detach().clone()
    estimator = DDPO(num_minibatches=1, surrogate=ImportanceRatio(clip), minibatch=12)
    (update,) = estimator.updates(sampled(chain))
    chain.model.w.data += torch.tensor([0.03, -0.02, 0.05], dtype=torch.float64)
    seen = watch(estimator)
    with pytest.warns(UserWarning, match="differs from the recorded step"):
        found = gradient_of(chain, update)
    (minibatch,) = seen
    chain.zero_grad()
    loss_by_hand(chain, old, clip, minibatch).backward()
    torch.testing.assert_close(found, -chain.model.w.grad, rtol=1e-9, atol=1e-12)
    share = estimator.metrics()["ddpo/clip_fraction"]
    assert (0 < share < 1) if clip < 0.1 else share < 0.05


def test_samples_beyond_the_range_have_no_gradient_in_the_direction_of_their_advantage() -> None:
    surrogate = ImportanceRatio(0.2)
    for advantage, ratio, loss, slope in [
        (1.0, 1.1, -1.1, -1.1),
        (1.0, 1.5, -1.2, 0.0),
        (1.0, 0.5, -0.5, -0.5),
        (-1.0, 1.5, 1.5, 1.5),
        (-1.0, 0.5, 0.8, 0.0),
    ]:
        log_prob = torch.tensor([ratio], dtype=torch.float64).log().requires_grad_()
        found = surrogate.loss(torch.tensor([advantage]), log_prob, torch.zeros(1))
        found.sum().backward()
        assert found.item() == pytest.approx(loss)
        assert log_prob.grad.item() == pytest.approx(slope)


def test_a_limit_cuts_off_the_logarithm() -> None:
    log_prob = torch.tensor([30.0, 1.0], requires_grad=True)
    ImportanceRatio(None, limit=20.0).loss(torch.ones(2), log_prob, torch.zeros(2)).sum().backward()
    assert log_prob.grad[0] == 0
    assert log_prob.grad[1] == pytest.approx(-(torch.tensor(1.0).exp().item()))


CLIPPED = [
    (ImportanceRatio(None, limit=0.5), [0.4, 0.6, -0.6], [False, True, True]),
    (ImportanceRatio(1.0, limit=0.1), [0.5, 0.05, -0.11], [True, False, True]),
    (ImportanceRatio(0.2, limit=5.0), [0.1, 0.2, -0.2, -0.3], [False, True, False, True]),
    (ImportanceRatio(0.2), [0.1, 0.2, -0.2, -0.3], [False, True, False, True]),
    (ImportanceRatio(None), [30.0, -30.0], [False, False]),
]


@pytest.mark.parametrize("case", range(len(CLIPPED)))
def test_out_of_range_is_what_clip_or_limit_cut_off(case: int) -> None:
    surrogate, changes, expected = CLIPPED[case]
    assert surrogate.clipped(torch.tensor(changes)).tolist() == expected


# --- what is said about it -------------------------------------------------------------------------------------------


def test_the_ratio_of_the_first_update_is_exactly_one() -> None:
    chain, estimator = linear_chain(T), DDPO(num_minibatches=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for update in estimator.updates(sampled(chain)):
            gradient_of(chain, update)
        assert estimator.metrics() == {"ddpo/approx_kl": 0.0, "ddpo/clip_fraction": 0.0, "ddpo/ratio_first": 1.0}
    assert estimator.metrics() == {}


def test_a_replay_that_is_not_the_record_is_reported_once() -> None:
    chain, estimator = linear_chain(T), DDPO(num_minibatches=1)
    rollouts = sampled(chain)
    chain.model.w.data[1] += 0.01
    for expected in (1, 0):
        with warnings.catch_warnings(record=True) as stated:
            warnings.simplefilter("always")
            for update in estimator.updates(rollouts):
                gradient_of(chain, update)
        assert len(stated) == expected
        assert abs(estimator.metrics()["ddpo/ratio_first"] - 1) > 1e-3
    with pytest.warns(
        UserWarning,
        match="expected a likelihood ratio of 1 .*; use precision 32-true, minibatches",
    ):
        DDPO()._check_first(1.001)


def test_metrics_are_the_published_ones() -> None:
    chain, estimator = linear_chain(T), DDPO(num_minibatches=1, surrogate=ImportanceRatio(0.01))
    old = chain.model.w.detach().clone()
    seen = watch(estimator)
    (update,) = estimator.updates(sampled(chain))
    chain.model.w.data[0] += 0.02
    with pytest.warns(UserWarning, match="differs from the recorded step"):
        gradient_of(chain, update)
    changes = []
    for m in seen:
        for t in range(1, T + 1):
            now, then = (
                Normal(p.mean, p.std).log_prob(m.trajectory.states[t - 1]).mean(1)
                for p in (
                    chain.sampler.transition(
                        w[0] * m.trajectory.states[t] + w[1] + w[2] * chain.grid.times[t],
                        m.trajectory.states[t],
                        t,
                        chain.grid,
                    )
                    for w in (chain.model.w.detach(), old)
                )
            )
            changes.append(now - then)
    change = torch.cat(changes)
    metrics = estimator.metrics()
    assert metrics["ddpo/approx_kl"] == pytest.approx(0.5 * change.square().mean().item(), rel=1e-6)
    assert metrics["ddpo/clip_fraction"] == pytest.approx(((change.exp() - 1).abs() > 0.01).double().mean().item())
    assert metrics["ddpo/ratio_first"] == pytest.approx(change[change.abs().argmax()].exp().item(), rel=1e-6)


# --- the first ratio among other samples ------------------------------------------------------------------------------


flat = unconditional(lambda x: x.flatten(1).mean(1))
"""An objective of latents of any shape."""


def first_changes(
    model: AffineModel, prompts: list[str], estimator: DDPO, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Returns the logarithms of the first ratios of three batches of four, in minibatches that mix their samples."""
    rollouts = mixed(Chain(model, DDIM(T)).eval(), prompts, dtype)
    order = [p for update in minibatches(estimator, rollouts) for m in update for p in m.rollout.prompts]
    assert order != [prompt for rollout in rollouts for prompt in rollout.prompts]
    return torch.cat(estimator._changes).abs()


def mixed(chain: Chain, prompts: list[str], dtype: torch.dtype) -> list[Rollout]:
    """Returns a round of three batches of four."""
    rollouts = []
    for k in range(3):
        noises, some = chain.draw(range(10 * k, 10 * k + 4)).to(dtype), prompts[k : k + 4]
        trajectory = record(chain, chain.encode(some), noises)
        rollouts.append(Rollout(chain, trajectory, flat, some, k, Scores(torch.arange(4, dtype=dtype))))
    return rollouts


class Forgetful(DDPO):
    """Sabotage: the whole of a staged prompt is read in every step."""

    def minibatch_terms(self, minibatch: Minibatch) -> Iterator[Term]:
        rollout = minibatch.rollout
        condition = rollout.chain.encode([str(prompt) for prompt in rollout.prompts])
        trajectory = replace(minibatch.trajectory, condition=condition)
        whole = Rollout(rollout.chain, trajectory, rollout.objective, rollout.prompts, rollout.seed)
        yield from super().minibatch_terms(replace(minibatch, rollout=whole))


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_it_is_one_to_the_bit_in_minibatches_as_large_as_a_batch(kind: str) -> None:
    assert not first_changes(AffineModel(dtype=kind), list(WORDS), DDPO(num_minibatches=3)).any()


def test_it_is_one_for_staged_prompts_of_which_each_reads_its_own_stage() -> None:
    model = AffineModel(dtype="float64")
    for settings in ({"num_minibatches": 3}, {"num_minibatches": 2, "timestep_fraction": 0.5}):
        assert first_changes(model, STAGED, DDPO(**settings), torch.float64).max() < 1e-12
        with pytest.warns(UserWarning, match="differs from the recorded step"):
            assert first_changes(model, STAGED, Forgetful(**settings), torch.float64).max() > 1e-3


def test_the_terms_of_a_minibatch_are_those_of_its_samples_alone() -> None:
    """Samples of several batches, with staged prompts, on other weights than those of the rollouts."""
    chain = Chain(AffineModel(dtype="float64"), DDIM(T)).eval()
    estimator = plain(surrogate=ImportanceRatio(None), minibatch=12)
    rollouts = mixed(chain, STAGED, torch.float64)
    seen = watch(estimator)
    (update,) = estimator.updates(rollouts)
    with torch.no_grad():
        chain.model.bias += 0.01
    with pytest.warns(UserWarning, match="differs from the recorded step"):
        together = gradient_of(chain, update)
    (whole,) = seen
    alone = []
    for k, rollout in enumerate(rollouts):
        for i, prompt in enumerate(rollout.prompts):
            trajectory = replace(rollout.select(torch.tensor([i])).trajectory, condition=chain.encode([prompt]))
            one = Rollout(chain, trajectory, flat, [prompt])
            row = torch.tensor([4 * k + i])
            alone.append(gradient_of(chain, estimator.minibatch_terms(Minibatch(one, whole.advantages[row], False))))
    assert whole.rollout.prompts == [prompt for rollout in rollouts for prompt in rollout.prompts]
    torch.testing.assert_close(together, torch.stack(alone).mean(0), rtol=1e-10, atol=1e-14)
    assert together.abs().max() > 1e-6


# --- steps -----------------------------------------------------------------------------------------------------------


def test_each_sample_draws_its_own_share_of_the_steps() -> None:
    chain = linear_chain(T)
    estimator = DDPO(num_minibatches=1, timestep_fraction=0.5, minibatch=12)
    ((minibatch,),) = minibatches(estimator, sampled(chain))
    counts = torch.zeros(T)
    for seed in range(200):
        drawn = estimator.trained(chain, reseeded(minibatch, seed))
        assert drawn.sum(1).tolist() == [3] * 12
        assert len(drawn.unique(dim=0)) > 1
        counts += drawn.sum(0)
    # of 2400 samples each step is drawn by a half, with a standard deviation of sqrt(600)
    assert (counts - 1200).abs().max() < 4 * 600**0.5


def test_parts_of_an_update_draw_the_steps_that_the_whole_draws_for_their_samples() -> None:
    """Of twice as many: those of the second half are not those of the first again."""
    chain = linear_chain(T)
    estimator, (whole,) = DDPO(num_minibatches=1, timestep_fraction=0.5), sampled(chain, 1, 8)
    halves = [whole.select(torch.arange(4)), whole.select(torch.arange(4, 8))]
    drawn = [estimator.trained(chain, Minibatch(half, half.rewards, fresh=True)) for half in halves]
    both = estimator.trained(chain, Minibatch(whole, whole.rewards, fresh=True))
    assert not torch.equal(*drawn)
    assert torch.equal(torch.cat(drawn), both)


def test_a_fraction_that_leaves_no_step_leaves_one() -> None:
    chain = linear_chain(T)
    (rollout, *_) = sampled(chain)
    terms = list(DDPO(timestep_fraction=0.01).terms(rollout))
    assert 1 <= len(terms) <= 4


REFUSED = [
    (lambda: DDPO(surrogate=ScoreFunction()), "set DDPO's num_minibatches and epochs to 1"),
    (lambda: DDPO(num_minibatches=0), r"DDPO.num_minibatches: expected at least 1, got 0"),
    (lambda: DDPO(epochs=0), r"DDPO.epochs: expected at least 1, got 0"),
    (lambda: DDPO(minibatch=0), r"DDPO.minibatch: expected at least 1, got 0"),
    (lambda: DDPO(timestep_fraction=0), r"number in \(0, 1\]"),
    (lambda: DDPO(advantage_clip=-1), "advantage_clip: expected a positive"),
    (lambda: ImportanceRatio(0), "clip and limit must be positive"),
    (lambda: DDPO().check(Chain(Affine(Cosine()), DDIM(T, eta=0))), "DDPO needs noise in step 1"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_impossible_settings_are_refused(case: int) -> None:
    action, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        action()


def test_the_baseline_s_memory_is_kept() -> None:
    one, other = DDPO(), DDPO()
    chain = linear_chain(T)
    estimate(one, chain, quadratic, BATCH, 0)
    other.load_state_dict(one.state_dict())
    assert torch.equal(estimate(one, chain, quadratic, BATCH, 1), estimate(other, chain, quadratic, BATCH, 1))
    assert isinstance(Unscaled().baseline, LeaveOneOut)
