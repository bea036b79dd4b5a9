"""Scores computed in the background are those computed at once, and the next rollout does not wait for them."""

import copy
import pickle
import threading
from contextlib import nullcontext

import pytest
import torch

from rlr.estimators import (
    AWM,
    DDPO,
    GRPO,
    RAM,
    RLR,
    DiffusionNFT,
    ForwardProcess,
    HalfOrder,
    Sum,
    ZerothOrder,
)
from rlr.rewards.combine import Combine, RunningZScore
from rlr.scoring import AtOnce, InBackground
from tests.modules.test_ddp import Leave
from tests.modules.toy import AffineModel, Hard, Level, Remembering, Replay, align, prompts, run, weights

ESTIMATORS = {
    "half order": lambda: HalfOrder(2),
    "half order, sum": lambda: Sum([HalfOrder(2), AWM(process=ForwardProcess(2), num_minibatches=1, epochs=1)]),
    "zeroth order": ZerothOrder,
    "one point": lambda: ZerothOrder(antithetic=False),
    "rlr": lambda: RLR(2, steps=0),
    "ddpo": lambda: DDPO(2),
    "grpo": lambda: GRPO(2),
    "nft": lambda: DiffusionNFT(process=ForwardProcess(2)),
    "awm": lambda: AWM(process=ForwardProcess(2)),
    "ram": lambda: RAM(process=ForwardProcess(2)),
}


class Waiting(Hard):
    """Answers the first call only once ``gate`` is set; notes in which threads it computes."""

    def __init__(self, gate=None):
        super().__init__()
        self.gate, self.threads, self.asked = gate, set(), threading.Event()

    def forward(self, samples, words):
        self.threads.add(threading.get_ident())
        self.asked.set()
        if self.gate is not None:
            assert self.gate.wait(20), "the next rollout waits for the scores of this one"
        return super().forward(samples, words)


def scoring(overlap):
    return InBackground() if overlap else None


def trained(estimator, overlap, updates=4, accumulate=2, **settings):
    reward, batch = settings.pop("reward", Hard()), settings.pop("batch", 4)
    module = align(
        model=Remembering(),
        estimator=estimator(),
        scoring=scoring(overlap),
        accumulate=accumulate,
        reward=reward,
    )
    trainer = run(module, prompts(batch, samples_per_prompt=2), updates, **settings)
    return module, trainer


@pytest.mark.parametrize("name", ESTIMATORS)
def test_weights_and_logs_are_those_of_scores_at_once(name):
    (one, first), (other, second) = (trained(ESTIMATORS[name], overlap) for overlap in (False, True))
    assert torch.equal(weights(one), weights(other))
    assert not torch.equal(weights(one), weights(align()))
    assert vars(one.progress) == vars(other.progress)
    timeless = [key for key in first.callback_metrics if not key.startswith(("seconds", "memory", "samples_per"))]
    assert {k: first.callback_metrics[k] for k in timeless} == {k: second.callback_metrics[k] for k in timeless}


def test_so_are_those_of_a_reward_with_running_statistics_in_mixed_precision():
    def scaled():
        return Combine({"a": Hard(), "b": Hard()}, {"a": 1.0, "b": 0.5}, RunningZScore())

    pair = [
        trained(lambda: HalfOrder(2), overlap, 3, reward=scaled(), precision="bf16-mixed")[0]
        for overlap in (False, True)
    ]
    assert torch.equal(*map(weights, pair))
    one, other = (module.reward.statistics() for module in pair)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("overlap", [False, True])
def test_the_next_rollout_is_sampled_before_the_first_scores_are_there(overlap):
    """The judge answers only once the second rollout has begun; without overlap nothing would begin it."""
    gate = threading.Event()
    reward = Waiting(gate if overlap else None)
    starts = []

    class Watched(AffineModel):
        def encode(self, words):
            starts.append(reward.asked.is_set())
            if len(starts) == 2 and overlap:
                # the judge has the first samples, and holds their scores back until now
                assert reward.asked.wait(20)
                gate.set()
            return super().encode(words)

    module = align(
        model=Watched(),
        reward=reward,
        estimator=HalfOrder(2),
        scoring=scoring(overlap),
        accumulate=2,
    )
    run(module, prompts(4), 1)
    assert len(starts) == 2
    assert (threading.get_ident() in reward.threads) != overlap
    assert len(reward.threads) == 1


def test_the_opposite_sample_of_zeroth_order_is_drawn_meanwhile():
    """In one batch: the reward of the recorded samples, of the first and of the second shifted ones."""
    gate = threading.Event()
    reward = Waiting(gate)
    passes = []

    class Watched(AffineModel):
        def denoise(self, x, time, condition):
            passes.append(time)
            if len(passes) == 12:  # three chains of four steps
                gate.set()
            return super().denoise(x, time, condition)

    run(align(model=Watched(), reward=reward, estimator=ZerothOrder(), scoring=InBackground()), prompts(4), 1)
    assert len(passes) == 12


def test_what_the_judge_raises_ends_training():
    class Broken(Hard):
        def forward(self, samples, words):
            raise ConnectionError("the judge is gone")

    with pytest.raises(ConnectionError, match="the judge is gone"):
        trained(lambda: HalfOrder(2), True, reward=Broken())


def test_a_missing_score_skips_the_update():
    class Missing(Hard):
        def forward(self, samples, words):
            return super().forward(samples, words) * torch.tensor([1.0, torch.nan, 1.0, 1.0])

    with pytest.warns(UserWarning, match="not finite.*this update is skipped"), pytest.raises(FloatingPointError):
        trained(lambda: HalfOrder(2), True, reward=Missing())


def test_an_estimator_that_backpropagates_the_reward_is_refused():
    with pytest.raises(ValueError, match=r"model.scoring: InBackground expects an estimator .* found Replay"):
        trained(Replay, True, reward=Level())


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_a_precision_that_changes_the_default_type_is_refused(precision):
    class Adapted(AffineModel):
        has_reference = True

    module = align(model=Adapted(), reward=Hard(), estimator=HalfOrder(2), scoring=InBackground())
    with pytest.raises(ValueError, match=f"InBackground expects a precision .*found trainer.precision {precision}"):
        run(module, prompts(4), 1, precision=precision)


def test_the_thread_has_the_callers_gradient_mode_and_the_callers_order():
    background, order = InBackground(), []

    def task(number):
        order.append(number)
        return torch.is_grad_enabled()

    pending = []
    for number in range(20):
        with torch.no_grad() if number % 2 else nullcontext():
            pending.append(background.begin(lambda number=number: task(number)))
    assert [wait() for wait in reversed(pending)] == [False, True] * 10
    assert order == list(range(20))


@pytest.mark.parametrize("send", [copy.deepcopy, lambda scoring: pickle.loads(pickle.dumps(scoring))])
def test_a_copy_has_a_thread_of_its_own(send):
    background = InBackground()
    here = background.begin(threading.get_ident)()
    there = send(background).begin(threading.get_ident)()
    assert len({here, there, threading.get_ident()}) == 3
    assert AtOnce().begin(threading.get_ident)() == threading.get_ident()


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_two_forked_processes_equal_one(tmp_path):
    one, _ = trained(lambda: HalfOrder(2), False, 2, batch=8)
    module = align(model=Remembering(), estimator=HalfOrder(2), scoring=InBackground(), accumulate=2, reward=Hard())
    module.objective.scoring.begin(int)()  # the parent's thread does not follow
    run(module, prompts(4, samples_per_prompt=2), 2, strategy="ddp_fork", devices=2, callbacks=[Leave(tmp_path)])
    left = torch.load(tmp_path / "0.pt", weights_only=True)
    torch.testing.assert_close(left["weights"], weights(one), atol=1e-5, rtol=0)
