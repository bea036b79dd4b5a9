"""A penalty on samples whose reward is in doubt alone, from a reference that follows the training."""

import pytest
import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators import GatedPenalty
from rlr.estimators.divergence import Penalty
from rlr.models.swapped import swapped
from rlr.rewards import Combine, FunctionReward
from rlr.rewards.base import Scores
from rlr.rollout import Rollout
from tests.estimators.test_divergence import MOVED, gradient, moved_chain, rollout
from tests.modules.test_divergence import prompts, remembering
from tests.modules.toy import run, weights


def scored(chain: Chain, values: list[float], seed: int = 0, **parts: list[float]) -> Rollout:
    """A rollout with these scores."""
    made = rollout(chain, len(values), seed)
    named = {name: torch.tensor(part) for name, part in parts.items()}
    return Rollout(chain, made.trajectory, made.objective, made.prompts, made.seed, Scores(torch.tensor(values), named))


# --- the gate --------------------------------------------------------------------------------------------------------


def test_doubt_is_the_difference_of_ranks() -> None:
    sample = scored(moved_chain(), [1.0, 2, 3, 4], one=[4.0, 3, 2, 1], two=[10.0, 10, 30, 40])
    penalty = GatedPenalty(1.0, {"one": 1.0, "two": 3.0})
    penalty.begin([sample])
    # distribution functions at 1/8, 3/8, 5/8, 7/8; the equal ones are in the middle, at 2/8
    ranks, one, two = (
        torch.tensor([1.0, 3, 5, 7]) / 8,
        torch.tensor([7.0, 5, 3, 1]) / 8,
        torch.tensor([2.0, 2, 5, 7]) / 8,
    )
    torch.testing.assert_close(penalty.doubts(sample), (ranks - one / 4 - 3 * two / 4).double())


@pytest.mark.parametrize(
    ("share", "gated"), [(0.1, [0, 0, 0, 1]), (0.25, [0, 0, 0, 1]), (0.5, [0, 0, 1, 1]), (1.0, [1, 1, 1, 1])]
)
def test_the_share_with_the_largest_doubts_is_gated(share, gated) -> None:
    sample = scored(moved_chain(), [1.0, 2, 3, 4], other=[4.0, 3, 2, 1])
    assert GatedPenalty(1.0, {"other": 1.0}, share).sample_weights(sample).tolist() == gated
    # lower is better: the two agree, and all doubts are equal
    assert GatedPenalty(1.0, {"other": -1.0}, share).sample_weights(sample).tolist() == [1] * 4


def test_the_gate_is_of_the_round_and_not_of_a_minibatch() -> None:
    one = scored(moved_chain(), [1.0, 2], other=[1.0, 2])
    two = scored(moved_chain(), [3.0, 4], other=[-5.0, -6])
    penalty = GatedPenalty(1.0, {"other": 1.0}, share=0.5)
    penalty.begin([one, two])
    assert [penalty.sample_weights(r).tolist() for r in (one, two, two.select(torch.tensor([1])))] == [
        [0, 0],
        [1, 1],
        [1],
    ]


def test_increasing_functions_of_the_rewards_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    values, other = (torch.randn(12, generator=generator) for _ in range(2))
    gates = []
    for f, g in ((torch.clone, torch.clone), (torch.exp, lambda r: 1000 * r + 3)):
        sample = scored(moved_chain(), f(values).tolist(), other=g(other).tolist())
        gates.append(GatedPenalty(1.0, {"other": 1.0}, 0.3).sample_weights(sample))
    assert torch.equal(*gates)
    # 4 of 12: the quantile itself is gated
    assert gates[0].sum() == 4


# --- the gradient ----------------------------------------------------------------------------------------------------


def test_it_is_the_penalty_where_all_samples_are_gated() -> None:
    sample = scored(moved_chain(), [1.0, 2, 3, 4], other=[4.0, 3, 2, 1])
    assert torch.equal(gradient(GatedPenalty(0.7, {"other": 1.0}, share=1.0), sample), gradient(Penalty(0.7), sample))


def test_it_is_the_penalty_on_the_gated_samples() -> None:
    sample = scored(moved_chain(), [1.0, 2, 3, 4], other=[4.0, 3, 2, 1])
    found = gradient(GatedPenalty(0.7, {"other": 1.0}, share=0.5), sample)
    expected = gradient(Penalty(0.7), sample.select(torch.tensor([2, 3])))
    torch.testing.assert_close(found, expected / 2, rtol=1e-12, atol=1e-14)
    assert (found - gradient(Penalty(0.7), sample)).norm() > 0.01 * found.norm()


# --- the reference ---------------------------------------------------------------------------------------------------


def test_the_reference_moves_after_so_many_rounds() -> None:
    chain = moved_chain()
    sample = scored(chain, [1.0, 2], other=[1.0, 2])
    penalty, fixed = GatedPenalty(1.0, {"other": 1.0}, 1.0, every=2), Penalty(1.0)
    base = gradient(fixed, sample)
    for number, moved in ((0, False), (1, False), (2, True), (3, True)):
        penalty.begin([sample], number)
        found = gradient(penalty, sample)
        # at the reference itself there is no divergence, and its gradient is zero
        assert torch.equal(found, torch.zeros_like(base) if moved else base)
    kept = chain.model.w.detach().clone()
    chain.model.w.data += MOVED
    farther = scored(chain, [1.0, 2], other=[1.0, 2])
    found = gradient(penalty, farther)
    # the divergence from the weights of round 2, and not from the base model
    other = moved_chain()
    other.model.reference = lambda: swapped(other.model, {"w": kept})
    other.model.w.data = chain.model.w.data.clone()
    torch.testing.assert_close(found, gradient(fixed, scored(other, [1.0, 2], other=[1.0, 2])))
    assert torch.equal(chain.model.w, kept + MOVED)


def test_the_reference_is_kept() -> None:
    sample = scored(moved_chain(), [1.0, 2], other=[1.0, 2])
    one, other = (GatedPenalty(1.0, {"other": 1.0}, 1.0, every=1) for _ in range(2))
    one.begin([sample], 1)
    other.load_state_dict(one.state_dict())
    assert gradient(other, sample).abs().max() == 0
    other.load_state_dict({})
    assert gradient(other, sample).abs().max() > 0


def test_what_cannot_be_is_refused() -> None:
    for others in ({}, {"a": 0.0}):
        with pytest.raises(ValueError, match=r"penalty.others: expected other rewards with weights other than 0"):
            GatedPenalty(1.0, others)
    with pytest.raises(ValueError, match=r"share in \(0, 1\] and every >= 1 or None, got 0.0 and None"):
        GatedPenalty(1.0, {"a": 1.0}, 0.0)
    with pytest.raises(ValueError, match=r"with the part 'a', got the parts \['other'\]"):
        GatedPenalty(1.0, {"a": 1.0}).begin([scored(moved_chain(), [1.0, 2], other=[1.0, 2])])


# --- in the training step --------------------------------------------------------------------------------------------


def first(samples: Tensor, prompts: object) -> Tensor:
    return samples.flatten(1)[:, 0]


def last(samples: Tensor, prompts: object) -> Tensor:
    return samples.flatten(1)[:, -1]


def module(every: int | None, weight: float = 1.0):  # type: ignore[no-untyped-def]
    parts = {"x": FunctionReward(first, differentiable=True), "y": FunctionReward(last, differentiable=True)}
    penalty = GatedPenalty(weight, {"y": 1.0}, share=0.5, every=every)
    return remembering(reward=Combine(parts, {"x": 1.0, "y": 0.0}), penalty=penalty)


def test_it_trains_and_a_reference_that_moves_holds_back_less() -> None:
    free, held, moving = (module(every, weight) for every, weight in ((None, 1e-9), (None, 20.0), (2, 20.0)))
    start = weights(module(None))
    for one in (free, held, moving):
        run(one, prompts(4), 12)
    lengths = [(weights(one) - start).norm() for one in (held, moving, free)]
    assert 0 < lengths[0] < lengths[1] < lengths[2]
    assert moving.state.state_dict()["penalty"].keys() == moving.chain.model.trainable.keys()
    assert held.state.state_dict()["penalty"] == {}


def test_a_resumed_run_has_the_reference_of_the_uninterrupted_one(tmp_path) -> None:  # type: ignore[no-untyped-def]
    whole, part, resumed = (module(3, 20.0) for _ in range(3))
    run(whole, prompts(4), 8)
    path = tmp_path / "part.ckpt"
    run(part, prompts(4), 5).save_checkpoint(path)
    run(resumed, prompts(4), 8, ckpt_path=path)
    assert torch.equal(weights(whole), weights(resumed))
    # the reference matters: without it the run goes elsewhere
    state = torch.load(path, weights_only=True)
    state["alignment"]["penalty"] = {}
    torch.save(state, path)
    forgetful = module(3, 20.0)
    run(forgetful, prompts(4), 6, ckpt_path=path)
    six = module(3, 20.0)
    run(six, prompts(4), 6)
    assert not torch.equal(weights(six), weights(forgetful))
