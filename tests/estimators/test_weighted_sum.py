"""The sum of estimators: its gradient is the weighted sum of theirs, and its state is all of theirs."""

import pytest
import torch
from torch import Tensor

from rlr.estimators import (
    AWM,
    DDPO,
    Antithetic,
    DecayRamp,
    DiffusionNFT,
    Estimator,
    FirstOrder,
    ForwardProcess,
    HalfOrder,
    HalfOrderRLR,
    LookAhead,
    RoundStatistics,
    Sum,
)
from tests.estimators.problems import deviation, exact_gradients, linear_chain, quadratic, rollout
from tests.modules.toy import Level, Remembering, align, prompts, run, weights


def awm(**settings: object) -> AWM:
    settings = {"statistics": RoundStatistics(), "kl": 0.0, "num_minibatches": 1, **settings}
    return AWM(process=ForwardProcess(2), **settings)  # type: ignore[arg-type]


def path() -> HalfOrderRLR:
    return HalfOrderRLR(length=1, segments=None, control=LookAhead(ratio_weight=0.0))


def gradient(estimator: Estimator, seed: int = 0) -> Tensor:
    chain = linear_chain()
    for terms in estimator.updates([rollout(estimator, chain, quadratic, 8, seed)]):
        for term in terms:
            term.backward()
    return chain.model.get_parameter("w").grad  # type: ignore[return-value]


def test_its_gradient_is_the_weighted_sum() -> None:
    found = gradient(Sum([path(), awm()], [1.0, 0.3]))
    one, other = gradient(path()), gradient(awm())
    torch.testing.assert_close(found, one + 0.3 * other, rtol=1e-12, atol=1e-14)
    assert min(one.norm(), other.norm()) > 1e-3


def test_of_unbiased_estimates_of_disjoint_steps_it_is_unbiased() -> None:
    chain = linear_chain(4)
    exact = exact_gradients(chain).sum(0)
    assert deviation(Sum([FirstOrder(2), HalfOrder(skip_last=2)]), chain, quadratic, exact, count=100) < 4
    wrong = Sum([FirstOrder(2), HalfOrder(skip_last=2)], [2.0, 1.0])
    assert deviation(wrong, chain, quadratic, exact, count=100) > 10


def training(steps: int, **settings: object):  # type: ignore[no-untyped-def]
    both = Sum([path(), awm(old_weight=0.5, decay=DecayRamp(0.2, 0.6))], [1.0, 0.1])
    one = align(model=Remembering(frozen=False), reward=Level(), estimator=both, accumulate=2)
    return one, run(one, prompts(8), steps, **settings)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path) -> None:  # type: ignore[no-untyped-def]
    whole, _ = training(4)
    _, trainer = training(2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, logged = training(4, ckpt_path=str(tmp_path / "half.ckpt"))
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.estimator.estimators[1].old.updates == 4
    assert {"gradient/first_order", "gradient/half_order", "gradient/matching"} <= logged.logged_metrics.keys()
    # first order scores the recorded samples, and the others read its scores
    assert resumed.progress.reward_calls == whole.progress.reward_calls


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sum([path()]), "expected at least two estimators"),
        (lambda: Sum([path(), awm()], [1.0]), "as many positive weights"),
        (lambda: Sum([path(), awm()], [1.0, 0.0]), "as many positive weights"),
        (lambda: Sum([path(), awm(num_minibatches=2)]), "got AWM with 2; set its num_minibatches and epochs to 1"),
        (lambda: Sum([path(), DiffusionNFT()]), "got DiffusionNFT, which needs its own"),
        (lambda: Sum([path(), DDPO(1)]), "got DDPO, which needs its own"),
        (lambda: Sum([path(), Antithetic(path())]), "got Antithetic, which needs its own"),
    ],
)
def test_summands_that_do_not_fit_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()
