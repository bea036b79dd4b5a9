"""What belongs to a sample stays with it; what is known is not computed again; what was recorded can be made again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlr.chain import Chain
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
    Penalty,
    ZerothOrder,
)
from rlr.estimators.replay import Recorded, gather_rows
from rlr.models.base import Condition
from rlr.rewards.base import Scores
from rlr.rollout import Rollout, join
from rlr.samplers import DDIM
from rlr.seeding import Stream
from tests.modules.toy import STAGED, AffineModel, Level, Remembering

T = 6
PLAIN = ["one", "five", "two", "seven", "six", "four"]


class Counted:
    """The objective of the toy, with two parts; counts its calls."""

    def __init__(self, chain: Chain) -> None:
        self.chain, self.calls = chain, 0

    def __call__(self, x: Tensor, prompts: Sequence[str]) -> Scores:
        self.calls += 1
        values = Level()(self.chain.model.decode(x), prompts)
        flat = x.detach().flatten(1)
        return Scores(values, {"mean": flat.mean(1), "all": flat}, fault=None)


def toy(model: type[AffineModel] = AffineModel) -> Chain:
    return Chain(model(dtype="float64"), DDIM(T)).eval()


def rollout(estimator: Estimator, chain: Chain, prompts: Sequence[str] = PLAIN, seed: int = 0) -> Rollout:
    noises = chain.draw(range(100 * seed, 100 * seed + len(prompts))).double()
    return estimator.rollout(chain, prompts, noises, Counted(chain), seed)


def calls(rollout: Rollout) -> int:
    assert isinstance(rollout.objective, Counted)
    return rollout.objective.calls


def gradient(chain: Chain, terms: Iterator) -> Tensor:
    chain.zero_grad()
    for term in terms:
        term.loss.backward()
    return torch.cat([weight.grad.flatten() for weight in chain.model.trainable.values()])


# --- scores ----------------------------------------------------------------------------------------------------------

SCORED = {
    "first order": (FirstOrder(2), 1),
    "AlignProp": (AlignProp(), 1),
    "half order": (HalfOrder(2), 1),
    "half-order RLR": (HalfOrderRLR(2, None), 1),
    "RLR without zeroth order": (RLR(2, zeroth=False), 1),
    # a prediction is scored for each of three segments
    "look-ahead": (HalfOrder(2, control=LookAhead()), 1 + 3 + 1),
    "look-ahead, no value at the start": (HalfOrder(2, control=LookAhead(start_value=False)), 1 + 3),
    "DRaFT-LV": (DRaFTLV(2), 1 + 2),
    "RLR, four directions": (RLR(2, zeroth=ZerothOrder(4)), 1 + 4 * 2),
    "zeroth order, one-point": (ZerothOrder(antithetic=False), 2),
}


@pytest.mark.parametrize("name", SCORED)
def test_recorded_samples_are_scored_once(name: str) -> None:
    estimator, expected = SCORED[name]
    sampled = rollout(estimator, toy())
    (terms,) = estimator.updates([sampled])
    list(terms)
    assert calls(sampled) == expected
    rewards = sampled.rewards
    assert calls(sampled) == expected
    assert not rewards.requires_grad
    assert torch.equal(rewards, sampled.objective(sampled.trajectory.states[0], sampled.prompts).values)
    assert list(sampled.scores.parts) == ["mean", "all"]


def test_scores_of_other_samples_are_not_those_of_the_record() -> None:
    sampled = rollout(FirstOrder(), toy())
    recorded = sampled.rewards.clone()
    other = sampled.score(sampled.trajectory.states[0] + 1)
    assert not torch.allclose(other, recorded)
    assert torch.equal(sampled.rewards, recorded)


def test_estimators_maximize_the_negative_of_a_score_of_which_less_is_better() -> None:
    chain = toy()
    sampled = rollout(FirstOrder(2), chain)
    scored = sampled.objective

    def less(x: Tensor, prompts: Sequence[str]) -> Scores:
        return replace(scored(x, prompts), higher_is_better=False)

    turned = Rollout(chain, sampled.trajectory, less, sampled.prompts)
    one, other = (gradient(chain, FirstOrder(2).terms(r)) for r in (sampled, turned))
    assert torch.equal(one, -other)
    assert torch.equal(turned.rewards, -turned.scores.values)
    assert torch.equal(turned.scores.values, sampled.rewards)


# --- what can be made again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", [PLAIN, STAGED], ids=["plain", "staged"])
def test_replayed_and_resampled_samples_are_the_recorded_ones(prompts: list[str]) -> None:
    sampled = rollout(HalfOrder(), toy(), prompts)
    x = sampled.trajectory.states[0]
    assert torch.equal(sampled.resample(), x)
    for start, stop_grad_steps in ((T, ()), (3, ()), (4, {2, 3})):
        assert torch.equal(sampled.replay_sample(start, stop_grad_steps), x)
    with torch.no_grad():
        sampled.chain.model.bias += 0.1
    assert not torch.equal(sampled.resample(), x)


def test_draws_follow_from_the_seed() -> None:
    one, same, other = (rollout(FirstOrder(), toy(), seed=seed) for seed in (1, 1, 2))
    seeds = [r.spawn(Stream.DIRECTION, 3) for r in (one, same, other)]
    assert seeds[0] == seeds[1] != seeds[2]
    assert one.spawn(Stream.DIRECTION, 4) != seeds[0] != one.spawn(Stream.SEGMENT, 3)
    draws = [torch.rand(3, generator=r.generator(Stream.ORDER)) for r in (one, same, other)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


# --- some samples, and several batches -------------------------------------------------------------------------------


def same_conditions(one: Condition, other: Condition) -> None:
    for t in range(1, T + 1):
        assert torch.equal(one.at(t).tensors["c"], other.at(t).tensors["c"])


def same(one: Rollout, other: Rollout) -> None:
    assert [repr(prompt) for prompt in one.prompts] == [repr(prompt) for prompt in other.prompts]
    same_conditions(one.trajectory.condition, other.trajectory.condition)
    for name in ("states", "noises", "log_probs"):
        assert torch.equal(getattr(one.trajectory, name), getattr(other.trajectory, name))
    assert torch.equal(one.rewards, other.rewards)
    assert one.scores.parts.keys() == other.scores.parts.keys()
    for name, part in one.scores.parts.items():
        assert torch.equal(part, other.scores.parts[name])


@pytest.mark.parametrize("prompts", [PLAIN, STAGED], ids=["plain", "staged"])
@pytest.mark.parametrize("known", [True, False])
def test_a_rollout_in_pieces_joined_is_the_rollout(prompts: list[str], known: bool) -> None:
    whole = rollout(DDPO(), toy(), prompts)
    if known:
        assert whole.rewards.shape == (6,)
    pieces = [whole.select(rows) for rows in torch.arange(6).split([1, 3, 2])]
    assert [len(piece) for piece in pieces] == [1, 3, 2]
    joined = join(pieces, 7)
    assert isinstance(joined.trajectory, Recorded)
    same(joined, whole)
    assert joined.seed == 7
    assert [piece.seed for piece in pieces] == [whole.seed] * 3
    # the whole, and where nothing was known, each of the pieces
    assert calls(whole) == (1 if known else 4)


@pytest.mark.parametrize("prompts", [PLAIN, STAGED], ids=["plain", "staged"])
def test_samples_that_are_selected_keep_what_is_theirs(prompts: list[str]) -> None:
    whole = rollout(DDPO(), toy(), prompts)
    rows = torch.tensor([4, 0, 3])
    some = whole.select(rows)
    assert torch.equal(some.rewards, whole.rewards[rows])
    same_conditions(some.trajectory.condition, whole.chain.encode([prompts[i] for i in (4, 0, 3)]))
    assert torch.equal(some.trajectory.states, whole.trajectory.states[:, rows])
    # another size of batch rounds differently
    torch.testing.assert_close(some.replay_sample(T), some.trajectory.states[0], rtol=1e-12, atol=1e-14)
    same(some.select(torch.tensor([1])), whole.select(torch.tensor([0])))


def test_joined_conditions_are_those_of_the_joined_prompts() -> None:
    """Batches with and without staged prompts, cut into different stages."""
    chain = toy()
    batches = [STAGED[:2], PLAIN[:3], STAGED[2:]]
    joined = chain.join([chain.encode(batch) for batch in batches])
    same_conditions(joined, chain.encode([prompt for batch in batches for prompt in batch]))
    assert len({id(joined.at(t)) for t in range(1, T + 1)}) < T


def test_rows_of_a_round_are_gathered_in_their_order() -> None:
    chain = toy()
    rollouts = [rollout(DDPO(), chain, some, seed) for seed, some in enumerate((STAGED[:2], PLAIN[:3], STAGED[2:]))]
    everything = join(rollouts, 3)
    for rows in (torch.tensor([0, 1]), torch.tensor([1, 4, 8]), torch.arange(9)):
        same(gather_rows(rollouts, rows, 3), everything.select(rows))


# --- prompts are encoded once ----------------------------------------------------------------------------------------


def update(estimator: Estimator) -> Callable[[Sequence[Rollout]], None]:
    def of(rollouts: Sequence[Rollout]) -> None:
        for terms in estimator.updates(rollouts, Penalty(0.1).terms):
            for term in terms:
                term.loss.backward()

    return of


ENCODED = {
    "RLR, four directions": RLR(2, zeroth=ZerothOrder(4)),
    "zeroth order, one-point": ZerothOrder(antithetic=False),
    "DDPO": DDPO(2, 2, minibatch=3),
    "half-order RLR, look-ahead": HalfOrderRLR(2, None, control=LookAhead()),
}


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize(("prompts", "once"), [(PLAIN, 1), (STAGED, 5)], ids=["plain", "staged"])
def test_prompts_of_a_batch_are_encoded_once_in_an_update(name: str, prompts: list[str], once: int) -> None:
    """Staged prompts once for each combination of stages."""
    chain, encoded = toy(Remembering), []
    encode = chain.model.encode
    chain.model.encode = lambda prompts: encoded.append(list(prompts)) or encode(prompts)
    estimator = ENCODED[name]
    rollouts = [rollout(estimator, chain, prompts, seed) for seed in range(3)]
    assert len(encoded) == 3 * once
    update(estimator)(rollouts)
    assert len(encoded) == 3 * once
    assert min(weight.grad.abs().max() for weight in chain.model.trainable.values()) > 0
