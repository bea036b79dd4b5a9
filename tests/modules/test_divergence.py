"""The divergence from the base model in the training step: as a penalty, and as a number in the log."""

import pytest
import torch

from rlr.estimators import DDPO
from rlr.estimators.divergence import Penalty, path_divergence
from rlr.models import Guidance
from rlr.modules import round_log
from rlr.modules.progress import passed
from rlr.rollout import Rollout
from rlr.samplers import DDIM
from tests.modules.toy import AffineModel, Remembering, Replay, align, prompts, run, weights


def remembering(**settings):
    return align(model=Remembering(frozen=False), **settings)


def logged_in(module, steps: int, **settings) -> list[float | None]:
    """What each batch logs of the divergence."""
    seen: list[float | None] = []
    log = module.log

    def watch(name, value, **more):
        if name == "kl/path":
            seen[-1] = float(value)
        log(name, value, **more)

    module.log = watch
    step = module.training_step

    def begin(batch, batch_idx):
        seen.append(None)
        return step(batch, batch_idx)

    module.training_step = begin
    run(module, prompts(), steps, **settings)
    return seen


def sgd(w):
    return torch.optim.SGD(w, 0.1)


def test_it_is_logged_at_its_updates_and_grows():
    found = logged_in(remembering(log_kl_every=3), 7)
    assert [value is not None for value in found] == [False, False, True, False, False, True, False]
    assert 0 < found[2] < found[5]


def test_with_accumulation_rounds_are_counted_and_not_batches():
    found = logged_in(remembering(log_kl_every=2, accumulate=2), 4)
    assert [value is not None for value in found] == [False, False, False, True] * 2


def test_several_updates_a_round_are_counted_and_not_rounds():
    """Rounds of four updates reach 4, 8, 12, …, so that multiples of 6 lie in the second, third, fifth and sixth."""
    module = remembering(log_kl_every=6, estimator=DDPO(4))
    found = logged_in(module, 24)
    assert [value is not None for value in found] == [False, True, True, False, True, True]
    assert module.progress.updates == 24


def test_a_skipped_update_does_not_count():
    """The second of five batches makes no update, so the third and the fifth reach the multiples of two."""
    estimator = Replay()
    estimator.spoil = lambda loss: loss * (float("nan") if estimator.rounds == 2 else 1.0)
    with pytest.warns(UserWarning, match="this update is skipped"):
        found = logged_in(remembering(log_kl_every=2, estimator=estimator), 4)
    assert [value is not None for value in found] == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("before", "now", "every", "answer"),
    [
        (0, 1, 1, True),
        (2, 3, 3, True),
        (3, 4, 3, False),
        (4, 8, 6, True),
        (6, 10, 4, True),
        (5, 7, 4, False),
        (6, 6, 3, False),
        (0, 50, 0, False),
        (0, 50, None, False),
    ],
)
def test_an_interval_holds_a_multiple_or_not(before, now, every, answer):
    assert passed(before, now, every) is answer
    if every:
        assert answer == any(n % every == 0 for n in range(before + 1, now + 1))


def test_by_default_it_is_sparse():
    module = remembering()
    found = logged_in(module, 26)
    assert [i for i, value in enumerate(found) if value is not None] == [24]
    # once when the module is built, and once a step of the chain
    assert module.chain.model.asked == 1 + 4


@pytest.mark.parametrize("model", [lambda: AffineModel(), lambda: Guidance(AffineModel(), 1.0)])
def test_a_model_that_does_not_remember_is_left_out(model):
    assert logged_in(align(model=model(), log_kl_every=1), 2) == [None, None]


def test_0_turns_it_off():
    assert logged_in(remembering(log_kl_every=0), 2) == [None, None]


def test_logging_changes_nothing():
    one, other = remembering(log_kl_every=1), remembering(log_kl_every=0)
    run(one, prompts(), 4)
    run(other, prompts(), 4)
    assert torch.equal(weights(one), weights(other))
    assert one.progress == other.progress


def test_what_is_logged_is_the_mean_over_the_batch(monkeypatch):
    taken = []
    monkeypatch.setattr(round_log, "path_divergence", lambda *args: taken.append(path_divergence(*args)) or taken[-1])
    found = logged_in(remembering(log_kl_every=2), 2)
    assert taken[0].shape == (4,)
    assert found == [None, pytest.approx(taken[0].mean().item())]


def test_the_penalty_is_subtracted_from_the_reward():
    """One step of SGD moves by the reward's gradient less the penalty's."""
    plain, fined, twin = (
        moved(align(model=Remembering(frozen=False, dtype="float64"), optimizer=sgd, **settings))
        for settings in ({}, {"penalty": Penalty(0.7)}, {})
    )
    draws, draw = [], fined.chain.draw
    fined.chain.draw = lambda seeds: draws.append(draw(seeds)) or draws[-1]
    for module in (plain, fined):
        run(module, prompts(shuffle=False), 1, precision="64-true")

    words = ["zero", "one", "two", "three"]
    trajectory = twin.chain.sample(twin.chain.encode(words), draws[0])
    for term in Penalty(0.7).terms(Rollout(twin.chain, trajectory, twin.objective.of_frames(), words)):
        term.loss.backward()
    expected = torch.cat([weight.grad.flatten() for weight in twin.weights])
    assert expected.norm() > 1e-3
    torch.testing.assert_close((weights(plain) - weights(fined)) / 0.1, expected, rtol=1e-8, atol=1e-10)


def moved(module):
    """Moves the weights away from those that the model remembers."""
    for weight in module.weights:
        weight.data += 0.05
    return module


def test_it_keeps_the_model_near_its_base():
    free, held = logged_in(remembering(log_kl_every=1), 20), logged_in(remembering(penalty=Penalty(1.0)), 20)
    assert None not in held
    assert held[0] == 0
    assert held[-1] < 0.5 * free[-1]


def test_with_the_full_gradient_too():
    held = logged_in(remembering(penalty=Penalty(1.0, full=True)), 20)
    assert held[-1] < 0.5 * logged_in(remembering(log_kl_every=1), 20)[-1]


def test_its_terms_are_logged_as_a_kind_of_their_own():
    logged = run(remembering(penalty=Penalty(0.1)), prompts(), 3).logged_metrics
    assert logged["gradient/kl"] > 0
    assert -1 <= logged["cosine/first_order_kl"] <= 1
    assert logged["seconds/kl"] > 0


def test_accumulating_two_batches_is_one_of_twice_the_size():
    settings = {"penalty": Penalty(0.3), "estimator": Replay(steps=3)}
    one, two = (align(model=Remembering(frozen=False, dtype="float64"), accumulate=n, **settings) for n in (1, 2))
    run(one, prompts(4), 3, precision="64-true")
    run(two, prompts(2), 3, precision="64-true")
    torch.testing.assert_close(weights(one), weights(two), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: align(model=AffineModel(), penalty=Penalty(0.1)),
            "divergence is from the base model, and AffineModel ",
        ),
        (
            lambda: remembering(sampler=DDIM(4, eta=0.0), penalty=Penalty(0.1)),
            r"needs steps with noise, and DDIM has no noise .*, or penalty to null",
        ),
        (lambda: Penalty(-0.1), r"penalty\.weight: expected a positive number, got -0\.1"),
        (lambda: remembering(log_kl_every=-1), r"optimization\.log_kl_every: expected at least 0, got -1"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_built(build, message):
    with pytest.raises(ValueError, match=message):
        build()
