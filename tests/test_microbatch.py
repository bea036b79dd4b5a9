"""Batches that pass the network, the decoder and the reward a few samples at a time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlr import lockstep
from rlr.analysis.measure import peak_bytes
from rlr.chain import Chain
from rlr.data import Prompts
from rlr.estimators import AlignProp, Antithetic, DirectionPerSample, Estimator, FirstOrder, HalfOrder, ZerothOrder
from rlr.estimators.control_variate import LookAhead
from rlr.microbatch import passed, ranges, rows
from rlr.models import Guidance
from rlr.models.base import Condition
from rlr.modules.memory import Memory
from rlr.objective import Objective
from rlr.rewards import Brightness
from rlr.rewards.base import Reward
from rlr.samplers import DDIM
from rlr.scoring import InBackground
from rlr.toy.models import Tiny
from tests.modules.processes import run_group
from tests.modules.test_one_curve import CASES
from tests.modules.toy import WORDS, Hard, Level, Remembering, align, run, weights

BATCH, UPDATES = 8, 3


def train(case: dict[str, Any], precision: str = "64-true", **settings: Any) -> Tensor:
    """Trains with batches of eight samples, and returns the weights."""
    accumulate = settings.get("accumulate", case.get("accumulate", 1))
    defaults: dict[str, Any] = {"model": Remembering(frozen=False, dtype="float64"), "lr": 0.01, "clip_norm": 1.0}
    one = align(**{**defaults, **case, **settings})
    batch = BATCH * case.get("accumulate", 1) // accumulate
    run(one, Prompts(list(WORDS[:5]), batch_size=batch, samples_per_prompt=2), UPDATES, precision=precision)
    return weights(one)


@pytest.mark.parametrize("name", CASES)
def test_micro_batches_give_the_weights_of_one_batch(name: str) -> None:
    """For every estimator of the library, with baselines, groups, regressions, critics and minibatches over all samples."""
    expected = train(CASES[name]())
    torch.testing.assert_close(train(CASES[name](), micro_batch=3), expected, atol=1e-10, rtol=0)
    assert (expected - weights(align(model=Remembering(frozen=False, dtype="float64")))).abs().max() > 1e-3


OVER_ROUNDS = ("DDPO", "DDPO, fewer samples than ranks", "GRPO", "AWM", "DiffusionNFT", "RAM")


@pytest.mark.parametrize("name", OVER_ROUNDS)
def test_small_batches_that_accumulate_give_the_weights_of_one_batch(name: str) -> None:
    """For the estimators that learn from a whole round; others have a baseline and draws of each batch."""
    expected = train(CASES[name](), accumulate=1)
    torch.testing.assert_close(train(CASES[name](), accumulate=4), expected, atol=1e-10, rtol=0)


def test_other_estimators_have_a_baseline_of_each_batch() -> None:
    expected = train(CASES["HalfOrder"](), accumulate=1)
    assert (train(CASES["HalfOrder"](), accumulate=4) - expected).abs().max() > 1e-4


def chain(micro_batch: int | None, checkpoint: bool = False) -> Chain:
    return Memory(checkpoint, micro_batch=micro_batch).chain(Guidance(Tiny(), 3.0), DDIM(2, eta=1.0)).eval()


def gradient(one: Chain, estimator: Estimator, batch: int, reward: Reward | None = None) -> Tensor:
    """Makes the gradient of an update."""
    objective = Objective(one.model, reward or Brightness())
    objective.micro_batch = one.micro_batch
    for weight in one.model.trainable.values():
        weight.grad = torch.zeros_like(weight)
    prompts = ["a red circle"] * batch
    rollout = estimator.rollout(one, prompts, one.draw(range(batch)), objective.of_frames(), 0)
    for term in estimator.terms(rollout):
        term.backward()
        del term
    return torch.cat([weight.grad.flatten() for weight in one.model.trainable.values() if weight.grad is not None])


PER_SAMPLE: dict[str, Callable[[], Estimator]] = {
    "whole chain": AlignProp,
    "look-ahead": lambda: HalfOrder(1, control=LookAhead()),
    "directions of samples": lambda: ZerothOrder(perturbation=DirectionPerSample()),
    "pairs": lambda: Antithetic(HalfOrder(2)),
}


@pytest.mark.parametrize("name", PER_SAMPLE)
def test_gradients_of_a_network_with_guidance_are_those_of_one_batch(name: str) -> None:
    expected = gradient(chain(None), PER_SAMPLE[name](), 4)
    for checkpoint in (False, True):
        found = gradient(chain(3, checkpoint), PER_SAMPLE[name](), 4)
        torch.testing.assert_close(found, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize("estimator", [FirstOrder(1), AlignProp(), HalfOrder(1)], ids=lambda e: type(e).__name__)
def test_the_peak_is_that_of_the_micro_batch(estimator: Estimator) -> None:
    """Twice the samples take little more where one passes at once, and about four times as much where all do."""

    def peak(batch: int, micro_batch: int | None) -> int:
        one = chain(micro_batch)
        gradient(one, estimator, 2)
        return peak_bytes(lambda: gradient(one, estimator, batch), torch.device("cpu"))

    one, two, whole = peak(2, 1), peak(4, 1), peak(4, None)
    assert two < 1.2 * one
    assert two < 0.5 * whole


class Failing(Brightness):
    """Has no gradient for the second half of a batch."""

    def forward(self, samples: Tensor, prompts: Any) -> Tensor:
        return super().forward(samples, prompts).detach()


def test_scores_are_those_of_one_batch_with_their_gradient() -> None:
    model, prompts = Remembering(), list(WORDS[:5])
    x = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    for reward in (Level(), Hard(), Failing()):
        found = []
        for size in (None, 2):
            objective = Objective(model, reward)
            objective.micro_batch = size
            leaf = x.clone().requires_grad_()
            scores = objective.of_frames()(leaf, prompts)
            assert objective.calls == 5
            values = scores.values
            slope = torch.autograd.grad(values.square().sum(), leaf)[0] if values.requires_grad else None
            found.append((values.detach(), slope))
        assert torch.equal(found[0][0], found[1][0])
        assert (found[0][1] is None) == (found[1][1] is None)
        if found[0][1] is not None:
            torch.testing.assert_close(found[0][1], found[1][1])


def test_scores_in_the_background_are_those_at_once() -> None:
    case = CASES["ZerothOrder"]
    expected = train(case(), "32-true", accumulate=2)
    found = train(case(), "32-true", accumulate=2, micro_batch=3, scoring=InBackground())
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_pass_knows_its_rows() -> None:
    seen: list[tuple[int, int]] = []

    def function(x: Tensor, condition: Condition) -> Tensor:
        here = rows(5)
        seen.append((here.start, here.stop))
        return x * condition.tensors["c"][:, None]

    x = torch.arange(5.0).view(5, 1).requires_grad_()
    out = passed(function, x, Condition({"c": torch.arange(5.0)}), 2)
    assert out.flatten().tolist() == [0.0, 1.0, 4.0, 9.0, 16.0]
    assert seen == [(0, 2), (2, 4), (4, 5)]
    out.sum().backward()
    assert sorted(seen[3:]) == seen[:3]  # made again in the backward pass, as the same rows
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert rows(7) == slice(0, 7)
    assert ranges(5, None) == [(0, 5)]


def test_processes_in_lockstep_make_as_many_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With five samples and with one; forward, and again in the backward pass."""
    monkeypatch.setattr(lockstep, "enabled", True)

    def work(rank: int) -> None:
        made: list[int] = []

        def function(x: Tensor, condition: Condition) -> Tensor:
            made.append(len(x))
            return x.square()

        x = torch.arange(1.0, 6.0 if rank == 0 else 2.0).view(-1, 1).requires_grad_()
        out = passed(function, x, Condition({"c": torch.ones(len(x))}), 2)
        assert len(made) == 3
        out.sum().backward()
        assert len(made) == 6
        assert x.grad is not None
        torch.testing.assert_close(x.grad, 2 * x.detach())
        torch.testing.assert_close(out.detach(), x.detach().square())

    run_group(2, work, tmp_path)


def test_a_micro_batch_has_a_sample() -> None:
    with pytest.raises(ValueError, match=r"memory\.micro_batch: expected at least 1, got 0"):
        Memory(micro_batch=0)


@pytest.fixture(autouse=True)
def fixed_seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
